"""Several teachers as one model, and stored outputs in the place of a teacher."""

from typing import Any, TypeAlias

import keras

from keras_dskd.features.layer_graph import layer_ids
from keras_dskd.internal.types import Config, Nested

#: One model, several by name, or none where `x["teacher_features"]` is given.
Teacher: TypeAlias = keras.Model | dict[str, keras.Model] | None


def as_model(teacher: Teacher) -> keras.Model:
    """What a user passes as `teacher`, as one model.

    Raises:
        ValueError: If a name or a model of a dict is not valid.
    """
    if teacher is None:
        return StoredTeacher()
    return Teachers(teacher) if isinstance(teacher, dict) else teacher


@keras.saving.register_keras_serializable(package="keras_dskd")
class Teachers(keras.Model):
    """Several models that run side by side. The output is a dict of their outputs.

    The input is a dict with one entry per model, or one input for all of them. The name
    of a tap starts with the name of a model: `"optical"` is that model's output, and
    `"optical/block2"` one of its layers.

    Args:
        members: Maps names to models.
        name: Name of the model.

    Raises:
        ValueError: If there are no models, a name cannot start the name of a tap, or
            one model has two names.
    """

    def __init__(
        self, members: dict[str, keras.Model], name: str = "teachers", **kwargs: Any
    ) -> None:
        super().__init__(name=name, autocast=False, **kwargs)
        for key, member in members.items():
            if not isinstance(key, str) or not key or set(key) & set("/:#()"):
                raise ValueError(
                    "The name of a teacher must be a string without any of / : # ( ). "
                    f"Received: {key!r}"
                )
            if not isinstance(member, keras.Model):
                raise ValueError(
                    f"Each teacher must be a keras.Model. Received for {key!r}: "
                    f"{member!r} of type {type(member).__name__}"
                )
        if not members or len(set(map(id, members.values()))) < len(members):
            raise ValueError(
                "A dict of teachers must hold at least one model, and each model once. "
                f"Received: {members}"
            )
        # Files store the weights in this order.
        self.members = {key: members[key] for key in sorted(members)}
        self.built = all(member.built for member in members.values())

    def build(self, input_shape: Nested = None) -> None:
        """Does nothing: each model builds itself when it is called."""
        self.built = True

    def call(self, inputs: Nested, training: bool | None = None) -> dict[str, Nested]:
        return {
            key: member(x, training=training)
            for (key, member), x in zip(
                self.members.items(), self.inputs_of_members(inputs), strict=True
            )
        }

    def inputs_of_members(self, inputs: Nested) -> list[Nested]:
        """The input of each model, in the order of `members`.

        Raises:
            ValueError: If the input names some of the models, but not exactly all.
        """
        if not isinstance(inputs, dict) or not set(inputs) & set(self.members):
            return [inputs] * len(self.members)
        if set(inputs) != set(self.members):
            raise ValueError(
                "The input of several teachers must have one entry per teacher, "
                f"{list(self.members)}, or be one input for all. Received the keys: "
                f"{sorted(map(str, inputs))}"
            )
        return [inputs[key] for key in self.members]

    def get_config(self) -> Config:
        seen: dict[int, str] = {}
        for key, member in self.members.items():
            for layer in layer_ids(member):
                if layer in seen:
                    raise ValueError(
                        f"The teachers {seen[layer]!r} and {key!r} share a layer, so "
                        "they cannot be saved together: Keras would save it once and "
                        "load two. Save the distiller with include_teacher=False."
                    )
                seen[layer] = key
        serialize = keras.saving.serialize_keras_object
        members = {key: serialize(member) for key, member in self.members.items()}
        return {"name": self.name, "members": members}

    @classmethod
    def from_config(cls, config: Config, custom_objects: Any = None) -> "Teachers":
        deserialize = keras.saving.deserialize_keras_object
        members = {key: deserialize(it) for key, it in config["members"].items()}
        return cls(members, config["name"])


@keras.saving.register_keras_serializable(package="keras_dskd")
class StoredTeacher(keras.Model):
    """Stands for a teacher whose outputs are stored, and whose model is not at hand.

    It has no weights and cannot run: batches bring `x["teacher_features"]`.
    """

    def __init__(self, name: str = "stored_outputs", **kwargs: Any) -> None:
        super().__init__(name=name, autocast=False, **kwargs)
        self.built = True

    def call(self, inputs: Nested, training: bool | None = None) -> Nested:
        raise ValueError(
            "The distiller was made without a teacher, teacher=None, so the teacher "
            'cannot run. Pass its stored outputs: x={"student": ..., '
            '"teacher_features": ...}, an array with one row per sample, or a dict '
            "that maps the names that the losses read to arrays."
        )

    def get_config(self) -> Config:
        return {"name": self.name}

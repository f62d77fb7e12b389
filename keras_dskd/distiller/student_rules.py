"""What a distiller takes over from its student."""

from typing import Any

import keras

from keras_dskd.data import pairs
from keras_dskd.internal import trainer_state
from keras_dskd.internal.types import FilePath


class FollowsStudent(keras.Model):
    """A model with the output names and the exported form of its student."""

    student: keras.Model

    @property
    def output_names(self) -> list[str]:
        """The student's output names, for losses, metrics and labels by name.

        Raises:
            AttributeError: If the student names no outputs, as subclassed models.
        """
        return self.student.output_names

    def export(
        self,
        filepath: FilePath,
        format: str = "tf_saved_model",  # noqa: A002  # Keras's own name.
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Exports the student for inference: `student.export`.

        Args:
            filepath: Path of the artifact.
            format: As in `keras.Model.export`.
            verbose: As in `keras.Model.export`.
            input_signature: Shapes and types of the student's input. By default they
                are known from the student, once it has been built.
            **kwargs: As in `keras.Model.export`.

        Raises:
            ValueError: If the signature describes a pair.
        """
        if any(pairs.is_pair(x) for x in (input_signature, *_items(input_signature))):
            raise ValueError(
                "The distiller exports its student. Expected the signature of the "
                f"student's input alone. Received: {input_signature}"
            )
        trainer_state.sync(self)
        self.student.export(filepath, format, verbose, input_signature, **kwargs)


def _items(signature: Any) -> list[Any]:
    return list(signature) if isinstance(signature, (list, tuple)) else []

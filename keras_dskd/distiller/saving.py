"""A model of teacher and student whose files hold all that training needs to go on."""

import collections.abc
import contextlib
import contextvars
import types
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import keras

from keras_dskd.distiller import weight_files
from keras_dskd.distiller.config import from_config, to_config
from keras_dskd.features.identity import fingerprint
from keras_dskd.features.layer_graph import layer_ids, layer_paths
from keras_dskd.internal import files
from keras_dskd.internal.types import Config, FilePath

if TYPE_CHECKING:
    from typing_extensions import Self

_teacher_at_hand = contextvars.ContextVar("teacher_at_hand", default=None)


class ResumableModel(keras.Model):
    """Saves and loads a `teacher` and a `student`, with or without the teacher.

    Attributes:
        saves_teacher: Whether files hold the teacher, where `save` is not told.
    """

    teacher: keras.Model
    student: keras.Model

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.saves_teacher = True
        self._left_out: types.SimpleNamespace | None = None
        self._awaits_teacher = False
        self._given_jit_compile = "auto"
        self._seed_states = SeedStates(self._seeds)

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "adam",
        loss: Any = None,
        metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """`keras.Model.compile`, with the defaults of Keras's distiller."""
        self._given_jit_compile = kwargs.get("jit_compile", "auto")
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)

    def get_compile_config(self) -> Config:
        """What `compile_from_config` takes; see `keras.Model.get_compile_config`."""
        # On loading, the optimizer of a built model is built, and then refuses the
        # state of one that was saved before its first step.
        self._build_optimizer()
        config = super().get_compile_config()
        _name_publicly(config.get("optimizer"))
        if "jit_compile" in config:
            # Keras writes what "auto" meant on this backend.
            config["jit_compile"] = self._given_jit_compile
        return config

    def compile_from_config(self, config: Config) -> None:
        """Compiles as before saving; see `keras.Model.compile_from_config`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self._build_optimizer()

    def _build_optimizer(self) -> None:
        if self.compiled and self.built and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)

    @property
    def layers(self) -> "Parts":
        """Teacher, student, projectors, and what else holds variables."""
        return Parts(super().layers)

    def save(
        self,
        filepath: FilePath,
        overwrite: bool = True,
        zipped: bool | None = None,
        include_teacher: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Saves all that training needs to go on; see `keras.Model.save`.

        The file takes the place of an older one when it is complete, and not before.
        It loads with `keras.models.load_model`, in safe mode, on any backend; the
        plain student can `load_weights` from it. Where Keras has to ask before it
        writes over a file, at remote paths and with `zipped=False` Keras writes as it
        does, with no such replacing and nothing for the plain student.

        Args:
            filepath: Path of the file, which ends in `.keras`.
            overwrite: Whether to write over an older file, or to ask.
            zipped: As in `keras.Model.save`.
            include_teacher: `False` leaves the teacher out: the file is then loaded
                with `Distiller.load(filepath, teacher=...)`. Defaults to
                `saves_teacher`.
            **kwargs: As in `keras.Model.save`.

        Raises:
            ValueError: If teacher and student share layers, or something is a lambda,
                which Keras would not load safely, or the path ends in `.h5`.
        """
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(
                "A distiller is saved in a `.keras` file, and its weights alone in a "
                f"`.weights.h5` file by `save_weights`. Received: {filepath}"
            )
        save = super().save
        check_nothing_shared(self.teacher, self.student)
        with self._teacher_left_out(include_teacher):
            config = self.get_config()
            compiled = self.get_compile_config() if self.compiled else None
            weight_files.check_no_lambda({self.name: config, "compile": compiled})
            if not files.is_replaceable(filepath, overwrite, ".keras"):
                return save(filepath, overwrite, zipped, **kwargs)
            with files.replacing(filepath) as written:
                save(written, True, zipped, **kwargs)
                weight_files.let_student_load(written)

    def save_weights(
        self,
        filepath: FilePath,
        overwrite: bool = True,
        max_shard_size: float | None = None,
        include_teacher: bool | None = None,
    ) -> None:
        """Saves all weights and states of training; see `keras.Model.save_weights`.

        The file takes the place of an older one when it is complete, and not before.
        The plain student can load it as well. Where Keras has to ask before it writes
        over a file, and at remote paths, it writes as it does, with neither.

        Args:
            filepath: Path of the file, which ends in `.weights.h5`.
            overwrite: Whether to write over an older file, or to ask.
            max_shard_size: As in `keras.Model.save_weights`. What is said of the file
                does not hold of shards, which always include the teacher.
            include_teacher: `False` leaves the teacher out: on loading, that of the
                distiller stays as it is. Defaults to `saves_teacher`.
        """
        save = super().save_weights
        with_teacher = (
            self.saves_teacher if include_teacher is None else include_teacher
        )
        if max_shard_size is not None and not with_teacher:
            raise ValueError(
                "Weights without the teacher go to one file. Received: "
                f"max_shard_size={max_shard_size}, include_teacher={with_teacher}"
            )
        with self._teacher_left_out(include_teacher):
            if max_shard_size is not None or not files.is_replaceable(
                filepath, overwrite, ".weights.h5"
            ):
                return save(filepath, overwrite, max_shard_size)
            with files.replacing(filepath) as written:
                save(written)
                weight_files.let_student_load(written)

    def load_weights(self, filepath: FilePath, *args: Any, **kwargs: Any) -> None:
        """Loads weights and states of training; see `keras.Model.load_weights`.

        A file without a teacher leaves the distiller's own as it is.
        """
        load = super().load_weights
        self._build_optimizer()  # Its state is in the file.
        with self._teacher_left_out(weight_files.holds_teacher(filepath)):
            load(filepath, *args, **kwargs)

    @classmethod
    def load(
        cls, filepath: FilePath, teacher: keras.Model | None = None, **kwargs: Any
    ) -> "Self":
        """Loads a distiller that `save` wrote.

        Args:
            filepath: Path of the `.keras` file.
            teacher: The teacher, where the file was saved without it.
            **kwargs: Arguments of `keras.models.load_model`.

        Returns:
            A `Distiller`, ready to go on.

        Raises:
            ValueError: If the file lacks its teacher and none is given, or that is not
                the one it was saved with, or the file holds one, or it holds no
                distiller.
        """
        with loading_with(teacher):
            made = keras.models.load_model(filepath, **kwargs)
        if not isinstance(made, ResumableModel):
            raise ValueError(
                f'"{filepath}" holds no distiller, but {made.name!r} of type '
                f"{type(made).__name__}. Load it with `keras.models.load_model`."
            )
        made._take_teacher_back()
        return made

    @contextlib.contextmanager
    def _teacher_left_out(self, include_teacher: bool | None) -> Iterator[None]:
        if self.saves_teacher if include_teacher is None else include_teacher:
            yield
            return
        self._build_optimizer()
        self._leave_teacher_out()
        try:
            yield
        finally:
            self._take_teacher_back()

    def _leave_teacher_out(self) -> None:
        # Files hold the attributes of a model.
        self._left_out = types.SimpleNamespace(teacher=self.teacher)
        del self.teacher

    def _take_teacher_back(self) -> None:
        if self._left_out is not None:
            self.teacher = self._left_out.teacher
        self._left_out = None
        self._awaits_teacher = False

    def load_own_variables(self, store: Any) -> None:
        """Nothing: a distiller's variables are those of its parts."""
        if self._awaits_teacher:
            self._leave_teacher_out()

    def _seeds(self) -> list[keras.Variable]:
        teacher = self._left_out.teacher if self._left_out else self.teacher
        others = [*self.weights, *self.metrics_variables, *teacher.variables]
        apart = {id(variable) for variable in others}
        return [variable for variable in self.variables if id(variable) not in apart]

    def get_config(self) -> Config:
        teacher = {"teacher": self._teacher_config()}
        return {**super().get_config(), **teacher, **to_config(self)}

    @classmethod
    def from_config(cls, config: Config) -> "Self":
        teacher, is_left_out = teacher_of(config["teacher"])
        distiller = cls(**from_config({**config, "teacher": teacher}))
        distiller._awaits_teacher = is_left_out
        distiller.saves_teacher = not is_left_out
        return distiller

    def _teacher_config(self) -> Config:
        if self._left_out is not None:
            return left_out(self._left_out.teacher)
        check_nothing_shared(self.teacher, self.student)
        return keras.saving.serialize_keras_object(self.teacher)


class Parts(collections.abc.Sequence[Any]):
    """A model's layers, which Keras does not name by their class and number in files.

    It does so for whatever it finds in a list, and would mistake the student for the
    teacher where a file leaves the teacher out. Parts are found as attributes.
    """

    def __init__(self, layers: Iterable[keras.layers.Layer]) -> None:
        self._parts = tuple(layers)

    def __getitem__(self, index: int | slice) -> Any:
        return self._parts[index]

    def __len__(self) -> int:
        return len(self._parts)

    def __repr__(self) -> str:
        return repr(list(self._parts))


class SeedStates(keras.layers.Layer):
    """Stores the state of random layers, such as dropout, which Keras does not.

    Args:
        seeds: Function of no arguments that returns the variables.
    """

    def __init__(self, seeds: Callable[[], list[keras.Variable]]) -> None:
        super().__init__(name="seeds", trainable=False)
        self._seeds = seeds
        self.built = True

    def save_own_variables(self, store: Any) -> None:
        for index, seed in enumerate(self._seeds()):
            store[str(index)] = seed

    def load_own_variables(self, store: Any) -> None:
        seeds = self._seeds()
        if len(store.keys()) != len(seeds):
            raise ValueError(
                f"Expected the states of {len(seeds)} random layers. Received: "
                f"{len(store.keys())}"
            )
        for index, seed in enumerate(seeds):
            seed.assign(store[str(index)])


def left_out(teacher: keras.Model) -> Config:
    """What a config holds in the place of a teacher."""
    return {"left_out": teacher.name, "fingerprint": fingerprint(teacher)}


@contextlib.contextmanager
def loading_with(teacher: keras.Model | None) -> Iterator[None]:
    """A context in which distillers without their teachers are loaded with this one."""
    token = _teacher_at_hand.set(teacher)
    try:
        yield
    finally:
        _teacher_at_hand.reset(token)


def teacher_of(config: Config) -> tuple[keras.Model, bool]:
    """The teacher of a config: `(model, is_left_out)`.

    Raises:
        ValueError: If there is none, one too many, or another one.
    """
    given = _teacher_at_hand.get()
    name = config.get("left_out") if "class_name" not in config else None
    if name is None:
        if given is not None:
            raise ValueError(
                "The file holds its own teacher. Load it without `teacher`; to go on "
                "with another one, make a distiller with it and use `load_weights`."
            )
        return keras.saving.deserialize_keras_object(config), False
    if given is None:
        raise ValueError(
            f"The distiller was saved without its teacher {name!r}. Load it with "
            "keras_dskd.Distiller.load(filepath, teacher=...)."
        )
    if fingerprint(given) != config["fingerprint"]:
        raise ValueError(
            f"The teacher {given.name!r} is not the one that the distiller was saved "
            f"with, {name!r}: their weights differ. To go on with another teacher, "
            "make a distiller with it and use `load_weights`."
        )
    return given, True


def _name_publicly(optimizer: Any) -> None:
    """Lets a serialised optimizer load on any backend.

    On torch Keras names a class of that backend alone, for an optimizer that has a
    class of the same name for all.
    """
    while isinstance(optimizer, dict) and hasattr(
        keras.optimizers, optimizer.get("class_name", "")
    ):
        if str(optimizer.get("module")).startswith("keras."):
            optimizer["module"] = "keras.optimizers"
        optimizer = optimizer["config"].get("inner_optimizer")


def check_nothing_shared(teacher: keras.Model, student: keras.Model) -> None:
    """Raises `ValueError` if both hold one layer, which a saved file would part.

    Keras writes the weights of a shared layer once, and makes two of it on loading.
    """
    of_teacher = layer_ids(teacher)
    shared = sorted(
        "/".join(path)
        for path, layer in layer_paths(student)
        if id(layer) in of_teacher
    )
    if shared:
        raise ValueError(
            "A distiller whose teacher and student share layers cannot be saved as a "
            f"whole. Shared: {shared}. Save `distiller.student` and "
            "`distiller.teacher` each, or the weights with `save_weights`."
        )

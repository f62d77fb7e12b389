"""A model whose files hold everything that training needs to resume."""

import contextlib
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras

from keras_dskd.distiller import weight_files
from keras_dskd.distiller.absent_teacher import (
    absent_teacher_config,
    check_nothing_shared,
    loading_with,
    teacher_from_config,
)
from keras_dskd.distiller.config import check_entries, from_config, to_config
from keras_dskd.distiller.optimizer_names import (
    name_optimizers_publicly,
    name_publicly,
)
from keras_dskd.distiller.saved_parts import Parts, SeedStates
from keras_dskd.features.teachers import StoredTeacher, as_model
from keras_dskd.internal import files
from keras_dskd.internal.types import Config, FilePath

if TYPE_CHECKING:
    from typing_extensions import Self


class ResumableModel(keras.Model):
    """Saves and loads a `teacher` and a `student`, with or without the teacher.

    Attributes:
        saves_teacher: Whether files include the teacher, by default.
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
        """Config of `compile_from_config`; see `keras.Model.get_compile_config`."""
        # Loading builds the optimizer of a built model, and then refuses the state of
        # an optimizer that was saved before its first step.
        self._build_optimizer()
        config = super().get_compile_config()
        name_publicly(config.get("optimizer"))
        if "jit_compile" in config:
            # Keras would save the value that "auto" has on this backend.
            config["jit_compile"] = self._given_jit_compile
        return config

    def compile_from_config(self, config: Config) -> None:
        """Compiles as before saving; see `keras.Model.compile_from_config`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self._build_optimizer()

    def _build_optimizer(self) -> None:
        # The user may have compiled the student, too.
        for model in (self, getattr(self, "student", None)):
            if model is not None and model.compiled and model.built:
                if model.optimizer is not None and not model.optimizer.built:
                    model.optimizer.build(model.trainable_variables)

    @property
    def layers(self) -> Parts:
        """Teacher, student, projectors, and layers that hold state."""
        return Parts(super().layers)

    def save(
        self,
        filepath: FilePath,
        overwrite: bool = True,
        zipped: bool | None = None,
        include_teacher: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Saves everything that training needs to resume; see `keras.Model.save`.

        The file loads with `keras.models.load_model`, in safe mode, on any backend.

        It replaces an older file only when it is complete, and the plain student can
        `load_weights` from it, except in three cases: at remote paths, with
        `zipped=False`, and if Keras asks before it overwrites a file. Keras then writes
        the file itself.

        Args:
            filepath: Path of the file, which ends in `.keras`.
            overwrite: Whether to overwrite an older file without asking.
            zipped: As in `keras.Model.save`.
            include_teacher: `False` leaves the teacher out: load the file with
                `Distiller.load(filepath, teacher=...)`. Defaults to `saves_teacher`.
            **kwargs: As in `keras.Model.save`.

        Raises:
            ValueError: If teacher and student share layers, the path ends in `.h5`, or
                the model contains a lambda (Keras does not load lambdas in safe mode).
        """
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(
                "Save a distiller to a `.keras` file, or its weights alone with "
                f"`save_weights` to a `.weights.h5` file. Received: {filepath}"
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
        """Saves all weights and training states; see `keras.Model.save_weights`.

        The file replaces an older one only when it is complete, and the plain student
        can load it too, except in three cases: at remote paths, for shards, and if
        Keras asks before it overwrites a file. Keras then writes the file itself.

        Args:
            filepath: Path of the file, which ends in `.weights.h5`.
            overwrite: Whether to overwrite an older file without asking.
            max_shard_size: As in `keras.Model.save_weights`. Shards always include the
                teacher.
            include_teacher: `False` leaves the teacher out: loading the file then keeps
                the distiller's teacher. Defaults to `saves_teacher`.

        Raises:
            ValueError: If `max_shard_size` is given without the teacher.
        """
        save = super().save_weights
        with_teacher = (
            self.saves_teacher if include_teacher is None else include_teacher
        )
        if max_shard_size is not None and not with_teacher:
            raise ValueError(
                "Weights without the teacher are saved in one file. Received: "
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
        """Loads weights and training states; see `keras.Model.load_weights`.

        If the file has no teacher, the distiller keeps its teacher.
        """
        load = super().load_weights
        self._build_optimizer()  # The file holds its state.
        with self._teacher_left_out(weight_files.holds_teacher(filepath)):
            load(filepath, *args, **kwargs)

    @classmethod
    def load(
        cls,
        filepath: FilePath,
        teacher: keras.Model | dict[str, keras.Model] | None = None,
        **kwargs: Any,
    ) -> "Self":
        """Loads a distiller that `save` wrote.

        Args:
            filepath: Path of the `.keras` file.
            teacher: The teacher, or the dict of teachers, if the file was saved
                without it.
            **kwargs: Arguments of `keras.models.load_model`.

        Returns:
            A `Distiller`, ready to resume training.

        Raises:
            ValueError: If the file lacks its teacher and `teacher` is missing or is a
                different model; if the file includes a teacher and `teacher` is given;
                or if the file does not hold a distiller.
        """
        with loading_with(None if teacher is None else as_model(teacher)):
            distiller = keras.models.load_model(filepath, **kwargs)
        if not isinstance(distiller, ResumableModel):
            raise ValueError(
                f'"{filepath}" does not hold a distiller, but {distiller.name!r} of '
                f"type {type(distiller).__name__}. Load it with "
                "`keras.models.load_model`."
            )
        distiller._take_teacher_back()
        return distiller

    @contextlib.contextmanager
    def _teacher_left_out(self, include_teacher: bool | None) -> Iterator[None]:
        is_included = self.saves_teacher if include_teacher is None else include_teacher
        if is_included or isinstance(self.teacher, StoredTeacher):
            yield
            return
        self._build_optimizer()
        self._leave_teacher_out()
        try:
            yield
        finally:
            self._take_teacher_back()

    def _leave_teacher_out(self) -> None:
        # Keras saves the layers that it finds as attributes, but not in a namespace.
        self._left_out = types.SimpleNamespace(teacher=self.teacher)
        del self.teacher

    def _take_teacher_back(self) -> None:
        if self._left_out is not None:
            self.teacher = self._left_out.teacher
        self._left_out = None
        self._awaits_teacher = False

    def load_own_variables(self, store: Any) -> None:
        """Loads nothing: all variables belong to the distiller's layers."""
        if self._awaits_teacher:
            self._leave_teacher_out()

    def _seeds(self) -> list[keras.Variable]:
        teacher = self._left_out.teacher if self._left_out else self.teacher
        others = [*self.weights, *self.metrics_variables, *teacher.variables]
        apart = {id(variable) for variable in others}
        return [variable for variable in self.variables if id(variable) not in apart]

    def get_config(self) -> Config:
        if self._left_out is not None:
            teacher = absent_teacher_config(self._left_out.teacher)
        else:
            check_nothing_shared(self.teacher, self.student)
            teacher = keras.saving.serialize_keras_object(self.teacher)
        config = {**super().get_config(), "teacher": teacher, **to_config(self)}
        name_optimizers_publicly(config)
        return config

    @classmethod
    def from_config(cls, config: Config) -> "Self":
        check_entries(config)
        teacher, is_absent = teacher_from_config(config["teacher"])
        config = from_config({**config, "teacher": teacher})
        evaluates_teacher = config.pop("evaluates_teacher", False)
        distiller = cls(**config)
        distiller.evaluates_teacher = evaluates_teacher
        distiller._awaits_teacher = is_absent
        distiller.saves_teacher = not is_absent
        return distiller

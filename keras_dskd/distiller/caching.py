"""The teacher's features of a whole data set, computed once."""

from typing import Literal

import keras

from keras_dskd import teacher_cache
from keras_dskd.data import pairs
from keras_dskd.distiller.forward import check_teacher
from keras_dskd.distiller.loss_term import LossTerm, names_read, pooled_names
from keras_dskd.features.feature_model import FeatureModel
from keras_dskd.internal.types import FilePath, Nested, Shard


class CachesTeacher(keras.Model):
    """A model that can run its teacher once, before training."""

    teacher: keras.Model
    student: keras.Model
    loss_terms: tuple[LossTerm, ...]

    def cache_teacher(
        self,
        x_teacher: Nested,
        path: FilePath | None = None,
        batch_size: int = 32,
        *,
        dtype: Literal["float16", "float32"] | None = None,
        verify: bool = True,
        verbose: int | Literal["auto"] = "auto",
        shard: Shard | None = None,
    ) -> dict[str, Nested]:
        """Computes the teacher's features of a data set once, for use in training.

        With a `path`, features are written to disk batch by batch, into a folder with
        one `.npy` file per feature and a `manifest.json`. Call it again with the same
        arguments to resume after an interruption, or to open the finished cache without
        running the teacher. A cache made with other weights, layers, samples, input
        values or another `dtype` is refused. `keras_dskd.open_teacher_cache(path)`
        opens a cache without teacher or distiller.

        Each sample has one row. A feature whose losses all pool it, as
        `ChannelIndependence` and `ChannelAlignment` do, is stored pooled: `4 c` bytes
        per sample. Other losses need the whole feature map `(h, w, c)`: `4 h w c` bytes
        per sample. The size is printed, and compared with the free disk space, before
        anything is written.

        `fit` reads memory-mapped arrays batch by batch on JAX and torch. On TensorFlow,
        and for float16 on any backend, Keras copies them to memory as float32;
        `keras_dskd.ArrayDataset` never does.

        Args:
            x_teacher: The strong modality of all samples, in order: any input that
                `keras.Model.predict` takes, `fit`'s dict, or a data set of either. With
                a `path`: arrays, or a `PyDataset` that has a length, returns the same
                rows each time, and has batches of one size (the last may be smaller).
            path: Folder of the cache. Defaults to arrays in memory.
            batch_size: Number of samples per batch, for arrays. Resuming with another
                batch size may change results by rounding.
            dtype: `"float16"` takes half the space; the rounding error is printed and
                recorded. Values above 65504 are refused. Defaults to the teacher's
                output type; bfloat16, which `.npy` files lack, becomes float32.
            verify: Whether opening a finished cache reads all of it to compare
                checksums.
            verbose: 0 for silent, 1 or `"auto"` for a progress bar.
            shard: `(index, count)` if `count` processes share the work. This process
                then computes, writes (to a subfolder of `path`) and returns only the
                rows `keras_dskd.shard_rows(samples, shard)`. The processes need not be
                connected.

        Returns:
            A dict of arrays, in memory or memory-mapped, one row per sample: the
            `"teacher_features"` of `fit`'s dict.

        Raises:
            ValueError: If the teacher has no weights yet, no loss reads it, or the
                folder holds another cache, a damaged one, or something else.
            OSError: If there is too little disk space.
        """
        pair = pairs.split(x_teacher)
        check_teacher(self.teacher, self.student, pair)
        names = names_read(self.loss_terms, "teacher")
        if not names:
            received = [type(term.loss).__name__ for term in self.loss_terms]
            raise ValueError(
                "No loss reads the teacher: there is nothing to cache. Received: "
                f"{received}"
            )
        features = FeatureModel(
            self.teacher,
            names,
            pooled_names(self.loss_terms),
            takes=pairs.teacher_input,
            role="teacher",
        )
        return teacher_cache.cache_features(
            features, pair.teacher, path, batch_size, dtype, verify, verbose, shard
        )

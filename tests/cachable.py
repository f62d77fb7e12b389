"""A teacher and data to cache. As a program it is killed while it writes the cache."""

import os
import signal
import sys

import keras
from seeds import set_seed
from small_models import cnn, images

import keras_dskd
from keras_dskd.teacher_cache import cache, feature_files

N, BATCH = 37, 4
X = images(N, 3, seed=1)
FEATURES = ("(output)", "conv0", "gap")


def distiller(seed=5):
    """Reads a feature map, a pooled feature and the output of a teacher."""
    set_seed(seed)
    return keras_dskd.Distiller(
        cnn(3, widths=(6,), name="teacher"),
        cnn(1, widths=(6,)),
        [
            keras_dskd.losses.SoftTargets(2.0),
            keras.distillation.FeatureDistillation("mse", "conv0", "conv0"),
            keras_dskd.losses.ChannelAlignment("gap", "gap"),
        ],
    )


def kill_at(function, call):
    """The function, which kills its process when it is called for the n-th time."""
    calls = 0

    def counting(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    return counting


POINTS = {
    # No manifest yet; then a manifest without files.
    "the first manifest": (os, "replace", 1),
    "the first file": (feature_files, "append_bytes", 1),
    # After three headers: rows in one file only; then in all, but not in the manifest.
    "rows": (feature_files, "append_bytes", 8),
    "a manifest": (os, "replace", 4),
}


if __name__ == "__main__":
    point, folder = sys.argv[1:]
    # A checkpoint after every second batch.
    feature_files._CHECKPOINT_SECONDS = 0.0
    cache._CHUNK_BATCHES = 2
    owner, name, call = POINTS[point]
    setattr(owner, name, kill_at(getattr(owner, name), call))
    distiller().cache_teacher(X, folder, BATCH, verbose=0)

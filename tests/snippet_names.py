"""Small real objects for the names that pages and docstrings leave undefined."""

import functools

import keras
import numpy as np

import keras_dskd

CLASSES, SIZE, SAMPLES = 4, 8, 64


def names_for(snippets, **given):
    """Returns a namespace with the names of the blocks that are defined here."""
    known = Names()
    vars(known).update(given)
    used = set().union(*(snippet.names() for snippet in snippets))
    return {name: getattr(known, name) for name in used if hasattr(known, name)}


def make_files(snippets):
    """Creates the files that blocks load, in the working directory."""
    text = "".join(snippet.text for snippet in snippets)
    for filename, model in (
        ("optical_teacher.keras", optical_teacher),
        ("radar_student.keras", radar_student),
    ):
        if filename in text:
            model().save(filename)


def optical_teacher():
    """A teacher of two-channel images; its layer `features` is 512 wide."""
    inputs = keras.Input((SIZE, SIZE, 2))
    features = keras.layers.Dense(512, "tanh", name="features")(_stages(inputs, 64))
    outputs = keras.layers.Dense(CLASSES, name="logits")(features)
    return keras.Model(inputs, outputs, name="optical_teacher")


def radar_student():
    """A student of one-channel images with a nested model, `backbone`."""
    inputs = keras.Input((SIZE, SIZE, 1))
    features = keras.layers.Dense(16, "tanh", name="features")(_stages(inputs, 8))
    backbone = keras.Model(inputs, features, name="backbone")
    outputs = keras.layers.Dense(CLASSES, name="logits")(backbone(inputs))
    return keras.Model(inputs, outputs, name="radar_student")


def _stages(x, width):
    """Adds the layers `block1`, `block2`, `block3`, and `pool` of this width."""
    for number, channels in enumerate((8, 8, width), start=1):
        strides = 1 if number == 1 else 2
        x = keras.layers.Conv2D(
            channels, 3, strides, "same", activation="tanh", name=f"block{number}"
        )(x)
    return keras.layers.GlobalAveragePooling2D(name="pool")(x)


class Names:
    """Every name that blocks may use; each object is created on access.

    Attributes:
        samples: Number of images.
    """

    samples = SAMPLES
    keras = keras
    keras_dskd = keras_dskd
    ops = keras.ops
    np = numpy = np
    count, index = 2, 0

    build_student = staticmethod(radar_student)
    teacher = functools.cached_property(lambda self: optical_teacher())
    student = functools.cached_property(lambda self: radar_student())

    @functools.cached_property
    def tf(self):
        import tensorflow

        return tensorflow

    @functools.cached_property
    def jax(self):
        import jax

        return jax

    @functools.cached_property
    def labels(self):
        return np.arange(self.samples) % CLASSES

    @functools.cached_property
    def optical(self):
        """Images with a pattern per class, and noise."""
        random = np.random.default_rng(0)
        patterns = random.normal(size=(CLASSES, SIZE, SIZE, 2))
        noise = random.normal(size=(self.samples, SIZE, SIZE, 2))
        return (patterns[self.labels] + noise).astype("float32")

    @property
    def radar(self):
        """The same scenes with less detail."""
        return self.optical[..., :1].round()

    radar_val = radar_test = radar
    pairs = property(lambda self: {"teacher": self.optical, "student": self.radar})
    optical_test = property(lambda self: self.optical)
    labels_test = labels_val = property(lambda self: self.labels)

    @functools.cached_property
    def model(self):
        """A network that calls its layer `head` twice."""
        inputs = keras.Input((SIZE, SIZE, 1))
        head = keras.layers.Dense(8, name="head")
        return keras.Model(inputs, head(head(_stages(inputs, 8))))

    @property
    def x(self):
        """A batch of images."""
        return self.radar[:8]

    @functools.cached_property
    def loss(self):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @functools.cached_property
    def distiller(self):
        made = keras_dskd.recommended(self.teacher, self.student)
        made.compile("adam", self.loss, metrics=["accuracy"])
        return made

    @property
    def batches(self):
        """Pairs and labels as a `tf.data.Dataset`."""
        data = self.tf.data.Dataset.from_tensor_slices((self.pairs, self.labels))
        return data.batch(32)

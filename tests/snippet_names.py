"""What pages and docstrings take for granted, as small real objects."""

import functools

import keras
import numpy as np

import keras_dskd

CLASSES, SIZE, SAMPLES = 4, 8, 64


def names_for(snippets, **given):
    """The namespace for blocks: of the names in them those that are known here."""
    known = Names()
    vars(known).update(given)
    used = set().union(*(snippet.names() for snippet in snippets))
    return {name: getattr(known, name) for name in used if hasattr(known, name)}


def make_files(snippets):
    """Makes the files that blocks load, in the working directory."""
    text = "".join(snippet.text for snippet in snippets)
    for filename, model in (
        ("optical_teacher.keras", optical_teacher),
        ("radar_student.keras", radar_student),
    ):
        if filename in text:
            model().save(filename)


def optical_teacher():
    """Of two channels; its `features` are 512 wide."""
    inputs = keras.Input((SIZE, SIZE, 2))
    features = keras.layers.Dense(512, "tanh", name="features")(_stages(inputs, 64))
    outputs = keras.layers.Dense(CLASSES, name="logits")(features)
    return keras.Model(inputs, outputs, name="optical_teacher")


def radar_student():
    """Of one channel; its layers are those of a nested model, `backbone`."""
    inputs = keras.Input((SIZE, SIZE, 1))
    features = keras.layers.Dense(16, "tanh", name="features")(_stages(inputs, 8))
    backbone = keras.Model(inputs, features, name="backbone")
    outputs = keras.layers.Dense(CLASSES, name="logits")(backbone(inputs))
    return keras.Model(inputs, outputs, name="radar_student")


def _stages(x, width):
    """Layers `block1`, `block2`, `block3`, and `pool`, which is `width` wide."""
    for number, channels in enumerate((8, 8, width), start=1):
        strides = 1 if number == 1 else 2
        x = keras.layers.Conv2D(
            channels, 3, strides, "same", activation="tanh", name=f"block{number}"
        )(x)
    return keras.layers.GlobalAveragePooling2D(name="pool")(x)


class Names:
    """Each name that blocks may use; what is asked for is made then.

    Attributes:
        samples: Number of images.
    """

    samples = SAMPLES
    keras = keras
    keras_dskd = keras_dskd
    ops = keras.ops
    np = numpy = np
    count, index = 2, 0

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
        """A pattern a class, and noise."""
        random = np.random.default_rng(0)
        patterns = random.normal(size=(CLASSES, SIZE, SIZE, 2))
        noise = random.normal(size=(self.samples, SIZE, SIZE, 2))
        return (patterns[self.labels] + noise).astype("float32")

    @property
    def radar(self):
        """The same scenes, of which less is seen."""
        return self.optical[..., :1].round()

    radar_val = radar_test = radar
    pairs = property(lambda self: {"teacher": self.optical, "student": self.radar})
    optical_test = property(lambda self: self.optical)
    labels_test = labels_val = property(lambda self: self.labels)

    @functools.cached_property
    def model(self):
        """A network whose layer `head` is called twice."""
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
        """Pairs and labels as a data set of TensorFlow's."""
        data = self.tf.data.Dataset.from_tensor_slices((self.pairs, self.labels))
        return data.batch(32)

"""Which labels a loss gets, if the student has several outputs."""

import keras
import numpy as np
import pytest

from keras_dskd.distiller.loss_term import make_terms
from keras_dskd.distiller.term_labels import labels_for
from keras_dskd.losses import (
    ContrastiveDistillation,
    DecoupledDistillation,
    RegressionTargets,
    SoftTargets,
)

pytestmark = pytest.mark.backend_neutral

KIND, SIZE = np.array([0, 1]), np.array([0.5, 1.5])


def student(structure):
    """Heads "kind_head" and "size_head" on "trunk", as a dict, a list or one."""
    inputs = keras.Input((3,))
    trunk = keras.layers.Dense(4, name="trunk")(inputs)
    kind = keras.layers.Dense(2, name="kind_head")(trunk)
    size = keras.layers.Dense(1, name="size_head")(trunk)
    outputs = {"dict": {"size": size, "kind": kind}, "list": [size, kind], "one": kind}
    return keras.Model(inputs, outputs[structure])


def labels_of(loss, labels, model):
    (term,) = make_terms([loss], model)
    return labels_for(term, labels, model)


BY_KEY = {"size": SIZE, "kind": KIND}
BY_LAYER = {"size_head": SIZE, "kind_head": KIND}


@pytest.mark.parametrize(
    ("structure", "labels"),
    [
        ("dict", BY_KEY),
        ("dict", BY_LAYER),
        ("list", [SIZE, KIND]),
        ("list", (SIZE, KIND)),
        ("list", BY_LAYER),
    ],
)
@pytest.mark.parametrize("layer", ["kind_head", "model/kind_head", "kind_head#0"])
def test_the_layer_of_a_head_tells_its_labels(structure, labels, layer):
    loss = DecoupledDistillation(student_layer_name=layer)
    assert labels_of(loss, labels, student(structure)) is KIND


@pytest.mark.parametrize("labels", [BY_KEY, BY_LAYER])
def test_a_label_name_tells_where_the_layer_does_not(labels):
    model = student("dict")
    name = next(name for name in labels if name.startswith("kind"))
    for loss in (
        DecoupledDistillation(student_layer_name="trunk", label_name=name),
        DecoupledDistillation(student_layer_name="size_head", label_name=name),
        ContrastiveDistillation("trunk", "trunk", label_name=name),
        RegressionTargets("trunk", "trunk", bounded=True, label_name=name),
    ):
        assert labels_of(loss, labels, model) is KIND


def test_a_loss_that_reads_no_labels_needs_no_label_name():
    loss = RegressionTargets("trunk", "trunk")
    for structure in ("dict", "list"):
        labels = BY_KEY if structure == "dict" else [SIZE, KIND]
        assert labels_of(loss, labels, student(structure)) is None


def test_a_label_name_without_an_output_of_that_name_raises():
    loss = DecoupledDistillation(student_layer_name="trunk", label_name="weight")
    message = r"label_name=..., one of \['kind', .*'size'.*label_name='weight'"
    with pytest.raises(ValueError, match=message):
        labels_of(loss, BY_KEY, student("dict"))


def test_a_layer_that_all_heads_share_raises():
    loss = ContrastiveDistillation("trunk", "trunk")
    message = r"labels for 2. Pass label_name=.*the student's layer 'trunk'"
    with pytest.raises(ValueError, match=message):
        labels_of(loss, BY_KEY, student("dict"))


def test_one_label_array_is_the_labels_of_every_loss():
    loss = DecoupledDistillation(student_layer_name="trunk")
    assert labels_of(loss, KIND, student("one")) is KIND
    assert labels_of(loss, {"kind_head": KIND}, student("one")) is KIND
    assert labels_of(loss, None, student("one")) is None
    named = DecoupledDistillation(label_name="kind")
    with pytest.raises(ValueError, match="labels are one array. Leave `label_name`"):
        labels_of(named, KIND, student("one"))


def test_other_losses_and_whole_outputs_get_all_labels():
    model = student("dict")
    bounded = RegressionTargets(bounded=True)
    assert labels_of(bounded, BY_KEY, model) is BY_KEY
    assert (
        labels_of(SoftTargets(student_layer_name="kind_head"), BY_KEY, model) is BY_KEY
    )


def test_a_subclassed_student_matches_names_of_layers_with_keys():
    class Net(keras.Model):
        """Its outputs are known only by what `call` returns."""

    loss = DecoupledDistillation(student_layer_name="heads/kind")
    assert labels_of(loss, BY_KEY, Net()) is KIND
    with pytest.raises(ValueError, match="labels for 2"):
        labels_of(loss, [SIZE, KIND], Net())

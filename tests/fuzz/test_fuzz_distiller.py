"""Whole distillers: values computed in NumPy term by term, or a clear error."""

import keras
import numpy as np
import pytest
from fuzz import nets
from fuzz.cases import CASES, Case
from fuzz.fuzzing import fuzzed
from fuzz.verdict import answer
from hypothesis import strategies as st

import keras_dskd

pytestmark = [
    # A weight of 0, or a head that no loss reads, leaves some without gradient.
    pytest.mark.filterwarnings("ignore:Gradients do not exist"),
    pytest.mark.filterwarnings("ignore:`sample_weight` does not reach Means"),
]

# Terms of order 1 over models of three layers in float32.
SAME = {"rtol": 2e-4, "atol": 2e-5}

SEEDS = st.integers(0, 2**32 - 1)


def assert_numbers(actual, expected):
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, err_msg=name, **SAME)
    assert actual["total_loss"] == actual["loss"]


def step(case):
    return case.make().train_on_batch(
        case.x, case.y, case.sample_weight, return_dict=True
    )


@fuzzed(
    "distiller", cases=3, share=0.08, n=st.sampled_from([1, 2, 5]), seed=SEEDS, **CASES
)
def test_one_step(**drawn):
    """All logs of an eager step are right, and the teacher does not change."""
    case = Case(**drawn)
    before = [w.copy() for w in case.teacher.model.get_weights()]
    expected = case.expected()
    logs = answer(lambda: step(case), valid=expected is not None)
    assert_numbers(logs, expected)
    for old, new in zip(before, case.teacher.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def mean_over_batches(case, sizes):
    """The logs of an epoch: means over batches, weighted by batch size."""
    batches, first = [], 0
    for index, size in enumerate(sizes):
        batches.append(case.expected(slice(first, first + size), step=index))
        first += size
    if None in batches:
        return None
    return {
        name: np.average([batch[name] for batch in batches], weights=sizes)
        for name in batches[0]
    }


@fuzzed(
    "distiller",
    cases=2,
    share=0.02,
    n=st.sampled_from([2, 5, 7]),
    batch_size=st.sampled_from([2, 3, 8]),
    validates=st.booleans(),
    eager=st.sampled_from([True, True, True, False]),
    seed=SEEDS,
    **CASES,
)
def test_an_epoch(n, batch_size, validates, eager, **drawn):
    """The last batch may be smaller; validation uses the student alone."""
    case = Case(n=n, eager=eager, **drawn)
    sizes = [min(batch_size, n - first) for first in range(0, n, batch_size)]
    expected = mean_over_batches(case, sizes)
    is_valid = expected is not None
    # A compiled TensorFlow program does not know its batch size. It cannot refuse a
    # batch of one, which has no statistics: the loss is finite instead.
    if not eager and keras.backend.backend() == "tensorflow" and 1 in sizes:
        is_valid = True if is_valid else None
    made = case.make()
    data = (case.x["student"], case.y) if validates else None
    history = answer(
        lambda: made.fit(
            case.x,
            case.y,
            sample_weight=case.sample_weight,
            batch_size=batch_size,
            validation_data=data,
            shuffle=False,
            verbose=0,
        ),
        is_valid,
    ).history
    logs = {name: values[-1] for name, values in history.items()}
    if expected is None:
        assert np.isfinite(logs["loss"])
        return
    assert_numbers(logs, expected)
    own = case.student_loss(weighted=False)
    if validates:
        np.testing.assert_allclose(logs["val_loss"], own, **SAME)
        assert not any("distillation" in name for name in logs if "val" in name)
    evaluated = made.evaluate(
        case.x["student"], case.y, batch_size=batch_size, verbose=0, return_dict=True
    )
    np.testing.assert_allclose(evaluated["loss"], own, **SAME)


# Arguments of the constructor

WEIRD = st.sampled_from(
    [None, 0, -1, 2, "hidden", "", [], {}, 0.5, 1.5, True, object()]
)


@fuzzed(
    "distiller",
    cases=20,
    share=0.01,
    argument=st.sampled_from(
        ["teacher", "student", "distillation_losses", "distillation_loss_weights"]
        + ["student_loss_weight", "projectors", "name"]
    ),
    weird=WEIRD,
)
def test_any_argument(argument, weird):
    """Replaces one argument by something else; the others are valid."""
    arguments = {
        "teacher": nets.net("teacher", "functional", 5, 3, 3, "one").model,
        "student": nets.net("student", "functional", 4, 3, 3, "one").model,
        "distillation_losses": [keras_dskd.losses.ChannelAlignment("hidden", "hidden")],
        "distillation_loss_weights": None,
        "student_loss_weight": 0.5,
        "projectors": None,
        "name": "distiller",
    }
    takes = {
        "teacher": (None,),  # Its outputs are stored.
        "distillation_loss_weights": (None, 0, 2, 0.5, 1.5),
        "student_loss_weight": (0, 0.5),
        "projectors": (None,),
    }
    is_valid = any(
        weird is value or (weird == value and not isinstance(weird, bool))
        for value in takes.get(argument, ())
    )
    if argument == "name" or (argument == "projectors" and not weird):
        is_valid = None
    made = answer(
        lambda: keras_dskd.Distiller(**{**arguments, argument: weird}), is_valid
    )
    assert isinstance(made, keras.Model)

"""`fit` on valid data with one change: the right values, or a clear error."""

import keras
import numpy as np
import pytest
from fuzz import nets
from fuzz.cases import Case
from fuzz.fuzzing import fuzzed
from fuzz.verdict import answer
from hypothesis import strategies as st

pytestmark = pytest.mark.filterwarnings("ignore:Gradients do not exist")

# Terms of order 1 over models of three layers in float32.
SAME = {"rtol": 2e-4, "atol": 2e-5}
N = 4
ROLES = ("teacher", "student")


def of_role(case, role, change):
    case.x[role] = keras.tree.map_structure(change, case.x[role])


def of_labels(case, change):
    case.y = change(case.y)


def cast_input(dtype):
    def change(case, role):
        of_role(case, role, lambda x: np.clip(3 * x, 0, 100).astype(dtype))

    return change


def input_as(change):
    return lambda case, role: of_role(case, role, change)


def labels_as(change):
    return lambda case, role: of_labels(case, change)


def weights_as(change):
    def change_case(case, role):
        case.sample_weight = change(np.array([0.5, 2.0, 0.0, 1.0], "float32"))

    return change_case


def mask_as(change):
    def change_case(case, role):
        case.mask = np.array([True, False, True, True])
        case.x["teacher_mask"] = change(case.mask)

    return change_case


def whole_input_as(change):
    def change_case(case, role):
        case.x = change(case.x, role)

    return change_case


def all_cut(case, role):
    case.x = keras.tree.map_structure(lambda x: x[:0], case.x)
    case.y = case.y[:0]


def poisoned(value):
    def change(x):
        x = x.copy()
        x.flat[0] = value
        return x

    return change


def as_objects(x):
    made = np.empty(len(x), object)
    made[:] = list(x)
    return made


#: Valid changes: values must match NumPy.
RIGHT = {
    "nothing": lambda case, role: None,
    **{f"{d} input": cast_input(d) for d in ("float16", "float64", "int32", "uint8")},
    "int64 input": cast_input("int64"),
    "bool input": cast_input("bool"),
    "constant input": input_as(np.zeros_like),
    "equal samples": input_as(lambda x: np.repeat(x[:1], len(x), axis=0)),
    "tensors": input_as(keras.ops.convert_to_tensor),
    "int8 labels": labels_as(lambda y: y.astype("int8")),
    "float labels": labels_as(lambda y: y.astype("float64")),
    "labels in a column": labels_as(lambda y: y[:, None]),
    "weights": weights_as(lambda w: w),
    "float64 weights": weights_as(lambda w: w.astype("float64")),
    "weights in a column": weights_as(lambda w: w[:, None]),
    "weights of zero": weights_as(lambda w: 0 * w),
    "mask": mask_as(lambda m: m),
    "int mask": mask_as(lambda m: m.astype("int32")),
    "float mask": mask_as(lambda m: m.astype("float64")),
    "mask in a column": mask_as(lambda m: m[:, None]),
}
#: Invalid changes: `fit` must raise.
WRONG = {
    "swapped": whole_input_as(
        lambda x, role: {"teacher": x["student"], "student": x["teacher"]}
    ),
    "one missing": whole_input_as(lambda x, role: {role: x[role]}),
    "one is None": whole_input_as(lambda x, role: {**x, role: None}),
    "unknown key": whole_input_as(lambda x, role: {**x, "depth": x[role]}),
    "one alone": whole_input_as(lambda x, role: x[role]),
    "None": whole_input_as(lambda x, role: None),
    "no keys": whole_input_as(lambda x, role: {}),
    "in a list": whole_input_as(lambda x, role: [x["teacher"], x["student"]]),
    "text": whole_input_as(lambda x, role: "x"),
    "number": whole_input_as(lambda x, role: 3),
    "wider": input_as(lambda x: np.concatenate([x, x], axis=-1)),
    "narrower": input_as(lambda x: x[..., :2]),
    "rank more": input_as(lambda x: np.stack([x, x], axis=1)),
    "rank less": input_as(lambda x: x[..., 0, 0] if x.ndim == 3 else x[:, 0]),
    "strings": input_as(lambda x: x.astype(str)),
    "object of None": input_as(lambda x: np.full(x.shape, None)),
    "fewer": input_as(lambda x: x[:-1]),
    "more": input_as(lambda x: np.concatenate([x, x])),
    "fewer labels": labels_as(lambda y: y[:-1]),
    "more labels": labels_as(lambda y: np.concatenate([y, y])),
    "no labels": labels_as(lambda y: None),
    "string labels": labels_as(lambda y: np.array([f"class {i}" for i in y])),
    "labels of None": labels_as(lambda y: np.full(len(y), None)),
    "fewer weights": weights_as(lambda w: w[:-1]),
    "string weights": weights_as(lambda w: np.array(["heavy"] * len(w))),
    "wide mask": mask_as(lambda m: np.stack([m, m], axis=1)),
    "fewer in mask": mask_as(lambda m: m[:-1]),
    "string mask": mask_as(lambda m: np.array(["yes"] * len(m))),
    "mask of None": mask_as(lambda m: np.full(len(m), None)),
    "mask of nothing": mask_as(lambda m: 3),
}
#: Changes that Keras may accept or refuse. If accepted, the loss must be finite.
EITHER = {
    "no samples": all_cut,
    "lists": input_as(lambda x: x.tolist()),
    "objects": input_as(lambda x: x.astype(object)),
    "objects of rows": input_as(as_objects),
    "list of labels": labels_as(list),
    "list of floats": labels_as(lambda y: [float(i) for i in y]),
    "object labels": labels_as(lambda y: y.astype(object)),
    "NaN labels": labels_as(lambda y: np.full(len(y), np.nan, "float32")),
    "labels out of range": labels_as(lambda y: y + 7),
    "negative labels": labels_as(lambda y: y - 5),
    "wide labels": labels_as(lambda y: np.stack([y, y], axis=1)),
    "labels of rank 3": labels_as(lambda y: y[:, None, None]),
    "label": labels_as(lambda y: 1),
    "dict of labels": labels_as(lambda y: {"logits": y}),
    "list of weights": weights_as(list),
    "object weights": weights_as(lambda w: w.astype(object)),
    "negative weights": weights_as(lambda w: -w),
    "wide weights": weights_as(lambda w: np.stack([w, w], axis=1)),
    "weight": weights_as(lambda w: 2.0),
    "NaN weights": weights_as(lambda w: np.full_like(w, np.nan)),
    "list mask": mask_as(list),
    "object mask": mask_as(lambda m: m.astype(object)),
    "NaN mask": mask_as(lambda m: np.where(m, 1.0, np.nan)),
    "trailing axis": input_as(lambda x: x[..., None]),
}
#: Of these, the ones for which Keras may report NaN.
MAY_BREAK = ("NaN weights", "NaN labels", "labels out of range", "negative labels")
#: Changes that make the loss non-finite.
BROKEN = {
    "NaN": input_as(poisoned(np.nan)),
    "all NaN": input_as(lambda x: np.full_like(x, np.nan)),
    "infinite": input_as(poisoned(np.inf)),
    "huge": input_as(lambda x: x * np.float32(1e30)),
}

LOSSES = st.sampled_from(
    [
        [("soft", None, None), ("aligned", "hidden", "hidden")],
        [("guided", "hidden", "hidden"), ("feature", "logits", "logits")],
        [("weighted user", "hidden", "hidden"), ("pooled", None, "hidden")],
        [("logits", None, None), ("own", None, "hidden")],
    ]
)
CHANGED = {
    "kinds": st.tuples(*[st.sampled_from(nets.KINDS)] * 2),
    "named": LOSSES,
    "role": st.sampled_from(ROLES),
    "seed": st.integers(0, 2**32 - 1),
}


def case_of(kinds, named, seed, eager=True, student_weight=0.5):
    return Case(
        kinds=kinds,
        hidden=(3, 3),
        classes=(3, 3),
        outputs=("one", "one"),
        named=named,
        weights=None,
        student_weight=student_weight,
        projected=False,
        weighted=False,
        labels="flat",
        masked=None,
        n=N,
        seed=seed,
        eager=eager,
    )


def fit(case):
    """The logs of one epoch with one batch."""
    history = case.make().fit(
        case.x,
        case.y,
        sample_weight=case.sample_weight,
        batch_size=2 * N,
        shuffle=False,
        verbose=0,
    )
    return {name: values[-1] for name, values in history.history.items()}


class Plain(keras.Model):
    """Plain Keras on the same data: the student alone."""

    def __init__(self, student):
        super().__init__()
        self.student = student

    def call(self, x):
        return self.student(x["student"] if isinstance(x, dict) else x)


def plain_fit(case):
    case.student.reset()
    model = Plain(case.student.model)
    model.compile(keras.optimizers.SGD(0.0), case.losses(), run_eagerly=case.eager)
    model.fit(
        case.x,
        case.y,
        sample_weight=case.sample_weight,
        batch_size=2 * N,
        shuffle=False,
        verbose=0,
    )


@fuzzed(
    "data",
    cases=2,
    share=0.02,
    name=st.sampled_from(sorted(RIGHT)),
    eager=st.sampled_from([True, True, True, False]),
    **CHANGED,
)
def test_valid_data_in_another_form_gives_the_same_values(
    name, kinds, named, role, seed, eager
):
    case = case_of(kinds, named, seed, eager)
    RIGHT[name](case, role)
    logs = answer(lambda: fit(case), valid=None if name in ("bool input",) else True)
    if case.sample_weight is not None:
        case.sample_weight = case.sample_weight.reshape(-1)
    case.y = case.y.reshape(-1)
    case.x = keras.tree.map_structure(keras.ops.convert_to_numpy, case.x)
    for number, value in case.expected().items():
        np.testing.assert_allclose(logs[number], value, err_msg=number, **SAME)


@fuzzed(
    "data",
    cases=10,
    share=0.02,
    name=st.sampled_from(sorted(WRONG)),
    student_weight=st.sampled_from([0.0, 0.5]),
    **CHANGED,
)
def test_invalid_data_raises(name, kinds, named, role, seed, student_weight):
    case = case_of(kinds, named, seed, student_weight=student_weight)
    WRONG[name](case, role)
    # Labels are not read if the student loss has no weight.
    is_label = name in ("no labels", "string labels", "labels of None")
    is_valid = None if is_label and not student_weight else False
    answer(lambda: fit(case), is_valid, like=lambda: plain_fit(case))


@fuzzed("data", cases=8, share=0.015, name=st.sampled_from(sorted(EITHER)), **CHANGED)
def test_unusual_data_gives_a_finite_loss_or_raises(name, kinds, named, role, seed):
    case = case_of(kinds, named, seed)
    EITHER[name](case, role)
    logs = answer(lambda: fit(case), like=lambda: plain_fit(case))
    assert np.isfinite(logs["loss"]) or name in MAY_BREAK


@fuzzed("data", cases=5, share=0.01, name=st.sampled_from(sorted(BROKEN)), **CHANGED)
def test_non_finite_input_shows_in_the_loss(name, kinds, named, role, seed):
    case = case_of(kinds, named, seed)
    BROKEN[name](case, role)
    logs = answer(lambda: fit(case), like=lambda: plain_fit(case))
    if "NaN" in name and (role == "student" or named[0][0] != "pooled"):
        assert np.isnan(logs["loss"]), logs
    elif "NaN" not in name:
        assert np.isfinite(logs["loss"]) or role == "student"


@fuzzed(
    "data",
    cases=4,
    share=0.005,
    name=st.sampled_from(["fewer in mask", "swapped", "narrower", "too wide a layer"]),
    eager=st.booleans(),
    **CHANGED,
)
def test_error_in_fit_keeps_all_weights(name, kinds, named, role, seed, eager):
    """A mistyped argument must not cost a teacher that took days to train."""
    case = case_of(kinds, named, seed, eager)
    if name == "too wide a layer":
        case.named = [("aligned", "hidden", "aux")]
        case.student = nets.net("student", "functional", 4, 3, 3, "list")
        case.x["student"] = case.student.data(N, seed)
        case.y = [case.y, case.y % 2]
    else:
        WRONG[name](case, role)
    try:
        answer(lambda: fit(case), valid=False)
    finally:
        for net in (case.teacher, case.student):
            lost = [v.path for v in net.model.variables if v._value is None]
            net.reset()
            assert not lost, f"Lost from the {net.role}: {lost}"

"""Every public loss passes the same checks; a new loss needs one line in `CASES`.

The checks are the tests of this file. What is particular to one loss is tested in the
other files of this folder, and the formulas themselves in `unit/ops`.
"""

import dataclasses
import inspect
import json
import re
from collections.abc import Callable

import keras
import numpy as np
import pytest
import reference
from gradients import (
    assert_gradient_close,
    compiled_on_jax,
    value,
    value_and_gradient,
)
from stock_distiller import distillation_loss_of_an_epoch, model

import keras_dskd
from keras_dskd import losses

SAMPLES = 5
LABELS = np.array([0, 2, 3, 1, 1])
NUMBERS = reference.samples(SAMPLES, 4, seed=4)
VECTOR, SEQUENCE, MAP = (4,), (3, 4), (2, 3, 4)
# Sums of at most some hundred float32 products of order 1.
TOLERANCE = {"rtol": 1e-5, "atol": 2e-6}


@dataclasses.dataclass
class Case:
    """One loss with some arguments.

    Attributes:
        loss: The loss, with arguments that differ from the defaults where possible.
        reference: The same value in float64 NumPy, of the teacher's and the student's
            features (and of the labels, if there are any).
        shapes: A sample's shape, for each rank that the loss takes.
        any_width: Whether the models' widths may differ.
        one_sample: Whether a single sample has a value.
        ragged: What the reference reads if steps are padded: each side's `"pooled"`
            real steps, the `"positions"` that are real on both sides, the features with
            `"zeros"` for padding, or `"each"` sample without padding, for the mean over
            samples. `None` if the loss does not read sequences.
        scale: Standard deviation of the features.
        labels: Labels handed to the loss.
    """

    loss: keras.distillation.DistillationLoss
    reference: Callable
    shapes: tuple = (VECTOR, SEQUENCE, MAP)
    any_width: bool = False
    one_sample: bool = False
    ragged: str | None = None
    scale: float = 1.0
    labels: np.ndarray | None = None

    def __post_init__(self):
        reads = inspect.signature(self.loss.compute_loss).parameters
        self.takes_mask = "teacher_mask" in reads
        self.takes_weight = "sample_weight" in reads
        if getattr(self.loss, "axis", -1) != -1:
            self.ragged = None  # Keras's masks are of steps before the channels.
        elif self.ragged is None and SEQUENCE in self.shapes:
            self.ragged = "pooled"
        self.reads_teacher = getattr(self.loss, "reads_teacher", True)
        self.sample_labels = LABELS if self.labels is None else self.labels

    def features(self, shape, samples=SAMPLES):
        """Teacher's and student's features of a shape, of two widths if allowed."""
        teacher = (*shape[:-1], shape[-1] + 1) if self.any_width else shape
        return [
            self.scale * reference.samples(samples, *sides, seed=seed)
            for seed, sides in enumerate((teacher, shape))
        ]

    def compute(self, teacher, student, labels=None, **given):
        if self.labels is not None:
            given["labels"] = self.labels if labels is None else labels
        return self.loss.compute_loss(teacher, student, **given)

    def expected(self, teacher, student, labels=None):
        if self.labels is None:
            return self.reference(teacher, student)
        return self.reference(
            teacher, student, self.labels if labels is None else labels
        )


def of_rows(formula, *arguments, kind="pooled", transform=lambda x: x):
    """A formula of rows as a function of features."""
    return lambda *features: transform(
        formula(*(reference.rows(x, kind) for x in features), *arguments)
    )


def of_student(formula, *arguments, kind="pooled"):
    return lambda teacher, student: formula(reference.rows(student, kind), *arguments)


def relations(distance, angle):
    def formula(teacher, student):
        total = distance * reference.relational_distance(teacher, student)
        return total + angle * reference.relational_angle(teacher, student)

    return of_rows(formula)


CASES = {
    "soft targets": Case(
        losses.SoftTargets(3.0),
        lambda t, s: reference.soft_targets(t, s, 3.0),
        shapes=(VECTOR, SEQUENCE),
        one_sample=True,
        ragged="positions",
        scale=3.0,
    ),
    "soft targets, classes first": Case(
        losses.SoftTargets(3.0, axis=1),
        lambda t, s: reference.soft_targets(
            *(np.moveaxis(x, 1, -1) for x in (t, s)), 3.0
        ),
        shapes=(SEQUENCE, MAP),
        one_sample=True,
        scale=3.0,
    ),
    "binary soft targets": Case(
        losses.BinarySoftTargets(3.0),
        lambda t, s: reference.binary_soft_targets(t, s, 3.0),
        one_sample=True,
        ragged="positions",
        scale=3.0,
    ),
    "hard targets": Case(
        losses.HardTargets(),
        reference.hard_targets,
        one_sample=True,
        ragged="positions",
    ),
    "hard targets, classes first": Case(
        losses.HardTargets(axis=1),
        lambda t, s: reference.hard_targets(*(np.moveaxis(x, 1, -1) for x in (t, s))),
        shapes=(SEQUENCE,),
        one_sample=True,
    ),
    "regression targets": Case(
        losses.RegressionTargets(),
        reference.regression_targets,
        one_sample=True,
        ragged="positions",
    ),
    "regression targets, bounded": Case(
        losses.RegressionTargets(bounded=True),
        reference.bounded_regression,
        shapes=(VECTOR,),
        one_sample=True,
        labels=NUMBERS,
    ),
    "regression targets, bounded with a margin": Case(
        losses.RegressionTargets(bounded=True, margin=0.5, label_name="height"),
        lambda t, s, y: reference.bounded_regression(t, s, y, 0.5),
        shapes=(VECTOR,),
        one_sample=True,
        labels=NUMBERS,
    ),
    "channel-wise distillation": Case(
        losses.ChannelWiseDistillation(2.0),
        lambda t, s: reference.channel_wise_distillation(t, s, 2.0),
        shapes=(SEQUENCE, MAP),
        one_sample=True,
        ragged="each",
    ),
    "decoupled distillation": Case(
        losses.DecoupledDistillation(2.0, 0.5, 3.0),
        lambda t, s, y: reference.decoupled_distillation(t, s, y, 2.0, 0.5, 3.0),
        shapes=(VECTOR,),
        one_sample=True,
        ragged="positions",
        labels=LABELS,
    ),
    "decoupled distillation, defaults": Case(
        losses.DecoupledDistillation(),
        reference.decoupled_distillation,
        shapes=(VECTOR,),
        one_sample=True,
        labels=LABELS,
    ),
    "decoupled distillation, a class ignored": Case(
        losses.DecoupledDistillation(ignore_class=9, label_name="kind"),
        reference.decoupled_distillation,
        shapes=(VECTOR,),
        one_sample=True,
        labels=LABELS,
    ),
    "decoupled distillation, non-targets alone": Case(
        losses.DecoupledDistillation(1.0, target_weight=0, non_target_weight=1.0),
        lambda t, s, y: reference.decoupled_distillation(t, s, y, 1.0, 0.0, 1.0),
        shapes=(VECTOR,),
        one_sample=True,
        labels=LABELS,
    ),
    "channel independence": Case(
        losses.ChannelIndependence(off_diagonal_weight=0.5, epsilon=0.3),
        of_rows(reference.guided_channel_independence, 0.5, 0.3),
    ),
    "channel independence, defaults": Case(
        losses.ChannelIndependence(), of_rows(reference.guided_channel_independence)
    ),
    "channel independence, alignment alone": Case(
        losses.ChannelIndependence(off_diagonal_weight=0),
        of_rows(reference.guided_channel_independence, 0.0),
        shapes=(VECTOR,),
    ),
    "channel independence, self": Case(
        losses.ChannelIndependence(target="self", epsilon=1e-3),
        of_student(reference.off_diagonal_energy, 1e-3),
        any_width=True,
    ),
    "channel alignment": Case(
        losses.ChannelAlignment(epsilon=0.3),
        of_rows(reference.channel_alignment, 0.3),
    ),
    "channel alignment, positions": Case(
        losses.ChannelAlignment(rows="positions"),
        of_rows(reference.channel_alignment, kind="positions"),
        one_sample=True,
        ragged="positions",
    ),
    "spatial uniformity": Case(
        losses.SpatialUniformity(temperature=1.5),
        of_student(reference.spatial_uniformity, 1.5),
        any_width=True,
    ),
    "spatial uniformity, flattened": Case(
        losses.SpatialUniformity(rows="flattened"),
        of_student(reference.spatial_uniformity, kind="flattened"),
        shapes=(MAP,),
        any_width=True,
        ragged="zeros",
    ),
    "spatial uniformity, positions": Case(
        losses.SpatialUniformity(rows="positions"),
        of_student(reference.spatial_uniformity, kind="positions"),
        shapes=(MAP,),
        any_width=True,
        one_sample=True,
        ragged="positions",
    ),
    "fitnet": Case(
        losses.FitNet(epsilon=0.1), of_rows(reference.standardized_distance, 0.1)
    ),
    "fitnet, positions": Case(
        losses.FitNet(rows="positions"),
        of_rows(reference.standardized_distance, kind="positions"),
        one_sample=True,
        ragged="positions",
    ),
    "attention transfer": Case(
        losses.AttentionTransfer(),
        reference.attention_transfer,
        shapes=(SEQUENCE, MAP),
        any_width=True,
        one_sample=True,
        ragged="each",
    ),
    "relational distillation": Case(
        losses.RelationalDistillation(), relations(25.0, 50.0), any_width=True
    ),
    "relational distillation, distances": Case(
        losses.RelationalDistillation(distance_weight=2.0, angle_weight=0),
        relations(2.0, 0.0),
        shapes=(VECTOR,),
        any_width=True,
    ),
    "similarity preserving": Case(
        losses.SimilarityPreserving(),
        of_rows(reference.similarity_preserving, kind="flattened"),
        any_width=True,
        ragged="zeros",
    ),
    "similarity preserving, pooled": Case(
        losses.SimilarityPreserving(rows="pooled"),
        of_rows(reference.similarity_preserving),
        shapes=(MAP,),
        any_width=True,
    ),
    "centered kernel alignment": Case(
        losses.CenteredKernelAlignment(),
        of_rows(reference.centered_kernel_alignment, transform=lambda alike: 1 - alike),
        any_width=True,
    ),
    "contrastive distillation": Case(
        losses.ContrastiveDistillation(temperature=0.5),
        of_rows(reference.contrastive_distillation, 0.5),
    ),
    "contrastive distillation, labels": Case(
        losses.ContrastiveDistillation(),
        lambda t, s, y: reference.contrastive_distillation(
            reference.rows(t), reference.rows(s), labels=y
        ),
        shapes=(VECTOR,),
        labels=LABELS,
    ),
}
LOGITS = (
    losses.SoftTargets,
    losses.BinarySoftTargets,
    losses.HardTargets,
    losses.DecoupledDistillation,
)
OUTPUTS = (*LOGITS, losses.RegressionTargets)
PUBLIC = {name: getattr(losses, name) for name in losses.__all__}
# The first case of each class.
ONE_CASE_EACH = {
    type(case.loss).__name__: case for case in reversed(list(CASES.values()))
}


def cases(which=lambda case: True):
    """Parametrizes a test with the cases of a kind."""
    chosen = {name: case for name, case in CASES.items() if which(case)}
    return pytest.mark.parametrize("case", chosen.values(), ids=list(chosen))


every_case = cases()
every_class = pytest.mark.parametrize("loss_class", PUBLIC.values(), ids=list(PUBLIC))


def arguments_of(loss_class):
    return list(inspect.signature(loss_class.__init__).parameters)[1:]


def copy_of(loss, **arguments):
    return type(loss).from_config({**loss.get_config(), **arguments})


def test_every_public_loss_has_a_case():
    assert sorted(ONE_CASE_EACH) == sorted(losses.__all__)


# Values and gradients


@pytest.mark.every_backend
@pytest.mark.parametrize(
    "case, shape",
    [
        pytest.param(case, shape, id=f"{name}-{len(shape)}d")
        for name, case in CASES.items()
        for shape in case.shapes
    ],
)
def test_value_and_gradient_match_the_reference(case, shape):
    teacher, student = case.features(shape)
    actual, gradients = value_and_gradient(
        case.compute, teacher, student, compiled=True
    )
    np.testing.assert_allclose(actual, case.expected(teacher, student), **TOLERANCE)
    expected = reference.finite_difference(
        lambda student: case.expected(teacher, student), student
    )
    assert np.abs(expected).max() > 1e-4
    assert_gradient_close(gradients[1], expected)
    np.testing.assert_array_equal(gradients[0], 0.0)  # The teacher is detached.


@pytest.mark.parametrize(
    "degenerate",
    ["zeros", "constant channel", "duplicate rows", "equal rows", "teacher of zeros"],
)
@every_case
def test_gradient_is_finite_for_degenerate_features(case, degenerate):
    teacher, student = case.features(case.shapes[-1])
    if degenerate == "zeros":
        student[:] = 0.0
    elif degenerate == "constant channel":
        student[..., 0] = 0.5
    elif degenerate == "duplicate rows":
        student[1] = student[0]
    elif degenerate == "equal rows":
        student[:] = student[0]
    else:
        teacher[:] = 0.0
    actual, gradients = value_and_gradient(case.compute, teacher, student)
    assert np.isfinite(actual)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@every_case
def test_float16_features_give_the_float32_value(case):
    # Squares of 1e4 overflow float16.
    scale = 10.0 if isinstance(case.loss, LOGITS) else 1e4
    rounded = [
        keras.ops.cast(scale * feature, "float16")
        for feature in case.features(case.shapes[-1])
    ]
    actual = compiled_on_jax(case.compute)(*rounded)
    assert keras.backend.standardize_dtype(actual.dtype) == "float32"
    arrays = [keras.ops.convert_to_numpy(x).astype("float64") for x in rounded]
    np.testing.assert_allclose(float(actual), case.expected(*arrays), rtol=2e-5)


# Samples


@every_case
def test_samples_without_a_teacher_are_left_out(case):
    """With the mask and the weights that `keras_dskd.Distiller` passes."""
    mask = np.array([1, 0, 1, 1, 1], bool)
    teacher, student = case.features(case.shapes[-1])
    expected = case.expected(teacher, student)
    if case.reads_teacher:
        kept = [x[mask] for x in (teacher, student, case.sample_labels)]
        expected = case.expected(*kept)
    assert case.takes_mask or case.takes_weight
    given = {}
    if case.takes_mask:
        given["teacher_mask"] = keras.ops.convert_to_tensor(mask)
    if case.takes_weight:
        given["sample_weight"] = np.where(mask, 5 / 4, 0.0).astype("float32")
    # Rows that only a weight leaves out must be finite.
    teacher[~mask] = np.nan if case.takes_mask and case.reads_teacher else 50.0

    actual = value(lambda t, s: case.compute(t, s, **given), teacher, student)

    np.testing.assert_allclose(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("left", [0, 1])
@cases(lambda case: case.takes_mask and case.reads_teacher)
def test_without_enough_teachers_the_loss_is_zero(case, left):
    if left and case.one_sample:
        left = 0
    mask = np.arange(SAMPLES) < left
    given = {"teacher_mask": keras.ops.convert_to_tensor(mask)}
    if case.takes_weight:
        given["sample_weight"] = (mask * SAMPLES).astype("float32")
    actual, gradients = value_and_gradient(
        lambda t, s: case.compute(t, s, **given), *case.features(case.shapes[-1])
    )
    # XLA may leave a rounding error of a rounding error.
    np.testing.assert_allclose(actual, 0.0, atol=1e-20)
    np.testing.assert_allclose(gradients[1], 0.0, atol=1e-20)


@cases(lambda case: case.takes_weight and not case.takes_mask)
def test_weighted_loss_is_the_mean_of_weighted_samples(case):
    weight = np.array([0.0, 2.0, 1.0, 0.5, 3.0], "float32")
    features = case.features(case.shapes[-1])
    each = [
        case.expected(*(x[i : i + 1] for x in (*features, case.sample_labels)))
        for i in range(SAMPLES)
    ]
    actual = value(lambda t, s: case.compute(t, s, sample_weight=weight), *features)
    np.testing.assert_allclose(actual, np.mean(weight * each), **TOLERANCE)


# Padded steps


#: Real steps of each sample: the third has none in the teacher.
STEPS = 5
TEACHER_STEPS = np.arange(STEPS) < np.array([[5], [3], [0], [4], [2]])
STUDENT_STEPS = np.arange(STEPS) < np.array([[3], [3], [5], [5], [1]])
STEP_LABELS = (LABELS[:, None] + np.arange(STEPS)) % 4


def without_padding(case, teacher, student):
    """The reference on real steps alone; see `Case.ragged`."""
    masks = [TEACHER_STEPS, STUDENT_STEPS]
    if not case.reads_teacher:
        masks[0] = masks[1]
    joint = masks[0] & masks[1]
    features = [
        np.where(mask[..., None], x, 0.0)
        for x, mask in zip((teacher, student), masks, strict=True)
    ]
    if case.ragged == "positions":
        return case.expected(*(x[joint] for x in features), STEP_LABELS[joint])
    has_steps = masks[0].any(axis=1) & masks[1].any(axis=1)
    if case.ragged == "each":
        return np.mean(
            [
                case.expected(*(x[i : i + 1, joint[i]] for x in features))
                for i in np.flatnonzero(has_steps)
            ]
        )
    if case.ragged == "pooled":
        features = [
            x.sum(axis=1) / np.maximum(mask.sum(axis=1, keepdims=True), 1)
            for x, mask in zip(features, masks, strict=True)
        ]
    return case.expected(*(x[has_steps] for x in features), LABELS[has_steps])


def on_steps(case, teacher_steps=TEACHER_STEPS, student_steps=STUDENT_STEPS):
    """The case's features of sequences, and its loss with masks of their steps."""
    masks = {"student_step_mask": keras.ops.convert_to_tensor(student_steps)}
    if case.reads_teacher:
        masks["teacher_step_mask"] = keras.ops.convert_to_tensor(teacher_steps)
    labels = STEP_LABELS if case.ragged == "positions" else LABELS

    def compute(teacher, student):
        return case.compute(teacher, student, labels, **masks)

    return case.features((STEPS, 4)), compute


@cases(lambda case: case.ragged)
def test_padded_steps_do_not_count(case):
    (teacher, student), compute = on_steps(case)
    expected = without_padding(case, teacher, student)
    if case.reads_teacher:
        teacher[~TEACHER_STEPS] = np.nan
    student[~STUDENT_STEPS] = np.nan

    actual, gradients = value_and_gradient(compute, teacher, student, compiled=True)

    np.testing.assert_allclose(actual, expected, **TOLERANCE)
    assert np.isfinite(gradients[1]).all()
    assert np.abs(gradients[1]).max() > 1e-4
    np.testing.assert_array_equal(gradients[1][~STUDENT_STEPS], 0.0)


@pytest.mark.parametrize(
    "loss, formula",
    [
        (losses.FitNet(rows="flattened"), reference.standardized_distance),
        (losses.ChannelAlignment(rows="flattened"), reference.channel_alignment),
    ],
    ids=["fitnet", "channel alignment"],
)
def test_flattened_steps_count_in_their_own_samples(loss, formula):
    steps = np.arange(3) < np.array([[3], [3], [2], [2], [3]])
    teacher, student = (reference.samples(SAMPLES, 3, 4, seed=i) for i in (0, 1))
    # The first two steps have all samples, the third has three; all have 4 channels.
    each = [formula(teacher[steps[:, t], t], student[steps[:, t], t]) for t in range(3)]
    student[~steps] = np.nan
    mask = keras.ops.convert_to_tensor(steps)
    actual = value(
        lambda t, s: loss.compute_loss(t, s, student_step_mask=mask), teacher, student
    )
    np.testing.assert_allclose(actual, np.mean(each), **TOLERANCE)


def test_flattened_cka_ignores_padding_after_centering():
    steps = np.arange(3) < np.array([[3], [3], [2], [1], [3]])
    teacher, student = (reference.samples(SAMPLES, 3, 4, seed=i) for i in (0, 1))
    means = np.nanmean(np.where(steps[..., None], student, np.nan), axis=0)
    centered = np.where(steps[..., None], student - means, 0.0)
    kernels = [
        x.reshape(SAMPLES, -1) @ x.reshape(SAMPLES, -1).T
        for x in (teacher - teacher.mean(axis=0), centered)
    ]
    alike = np.sum(kernels[0] * kernels[1])
    expected = 1 - alike / np.prod([np.linalg.norm(kernel) for kernel in kernels])
    student[~steps] = np.nan
    mask = keras.ops.convert_to_tensor(steps)
    loss = losses.CenteredKernelAlignment(rows="flattened")
    actual = value(
        lambda t, s: loss.compute_loss(t, s, student_step_mask=mask), teacher, student
    )
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


@cases(lambda case: case.ragged and case in ONE_CASE_EACH.values())
def test_without_any_real_step_the_loss_is_zero(case):
    none = np.zeros((SAMPLES, STEPS), bool)
    features, compute = on_steps(case, none, none)
    actual, gradients = value_and_gradient(compute, *features)
    np.testing.assert_allclose(actual, 0.0, atol=1e-20)
    np.testing.assert_allclose(gradients[1], 0.0, atol=1e-20)


@every_case
def test_one_sample_has_a_value_or_raises(case):
    features = case.features(case.shapes[-1], samples=1)

    def compute(teacher, student):
        return case.compute(teacher, student, case.sample_labels[:1])

    if case.one_sample:
        expected = case.expected(*features, case.sample_labels[:1])
        np.testing.assert_allclose(value(compute, *features), expected, **TOLERANCE)
    else:
        with pytest.raises(ValueError, match="at least [23] rows"):
            value(compute, *features)


@cases(lambda case: not case.any_width)
def test_widths_that_must_be_equal_raise(case):
    teacher, student = case.features(case.shapes[-1])
    message = r"4 teacher channels and 1 student channel.*Dense\(4"
    if isinstance(case.loss, OUTPUTS):
        message = "same shape"
    with pytest.raises(ValueError, match=message):
        value(case.compute, teacher, student[..., :1])


# Arguments


#: Values out of an argument's range.
OUT_OF_RANGE = {
    "teacher_layer_name": [3],
    "student_layer_name": [3],
    "temperature": [0, -2.0, float("nan")],
    "epsilon": [0.0, -1e-5, float("nan")],
    "target": ["both"],
    "rows": ["mean"],
    "off_diagonal_weight": [-0.1, float("nan")],
    "target_weight": [-1, "2"],
    "non_target_weight": [-1, "2"],
    "distance_weight": [-1, "2"],
    "angle_weight": [-1, "2"],
    "margin": [-1, "2", float("nan")],
    "axis": [0, 1.5, True],
    "ignore_class": ["255", 1.5, True],
    "label_name": [3],
    # Any value is true or false.
    "bounded": [],
    "teacher_from_logits": [],
    "student_from_logits": [],
}


@pytest.mark.parametrize(
    "loss_class, name",
    [
        pytest.param(loss_class, name, id=f"{loss_class.__name__}-{name}")
        for loss_class in PUBLIC.values()
        for name in arguments_of(loss_class)
    ],
)
def test_argument_out_of_range_raises_and_is_named(loss_class, name):
    for wrong in OUT_OF_RANGE[name]:
        message = f"must be .*Received: {name}='?{wrong}'?"
        if name.endswith("_name"):
            message = f"Received: {wrong} of type int"
        with pytest.raises(ValueError, match=message):
            loss_class(**{name: wrong})


@every_class
def test_metric_is_named_after_the_class(loss_class):
    words = re.findall("[A-Z][a-z]+", loss_class.__name__.replace("FitNet", "Fitnet"))
    assert loss_class.name == "_".join(words).lower()


@every_case
def test_config_holds_all_arguments_and_survives_serialization(case):
    config = case.loss.get_config()
    assert set(config) == set(arguments_of(type(case.loss)))
    serialized = json.dumps(keras.saving.serialize_keras_object(case.loss))
    restored = keras.saving.deserialize_keras_object(json.loads(serialized))
    assert type(restored) is type(case.loss)
    assert restored.get_config() == config
    assert vars(restored) == vars(case.loss)


@pytest.mark.parametrize("names", [("a", "b"), (None, "b"), ("a", None), (None, None)])
@every_class
def test_layer_names_survive_serialization(loss_class, names):
    given = dict(zip(("teacher_layer_name", "student_layer_name"), names, strict=True))
    given = {k: v for k, v in given.items() if k in arguments_of(loss_class)}
    loss = loss_class(**given)
    assert given.items() <= loss.get_config().items()
    serialized = keras.saving.serialize_keras_object(loss)
    restored = keras.saving.deserialize_keras_object(serialized)
    assert vars(restored) == vars(loss)


def named_layers(loss):
    """The loss, reading the features of `stock_distiller.model`."""
    names = {"student_layer_name": "student_feature"}
    if getattr(loss, "reads_teacher", True):
        names["teacher_layer_name"] = "teacher_feature"
    return copy_of(loss, **names)


def test_a_saved_distiller_has_its_losses_again(tmp_path):
    models = [model(role, positions=(3,)) for role in ("teacher", "student")]
    given = [named_layers(case.loss) for case in CASES.values()]
    distiller = keras_dskd.Distiller(*models, given)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    for restored, loss in zip(loaded.distillation_losses, given, strict=True):
        assert type(restored) is type(loss)
        assert vars(restored) == vars(loss)


# Keras's own Distiller


@cases(lambda case: case in ONE_CASE_EACH.values())
def test_keras_distiller_trains_with_it_on_named_layers(case):
    positions = case.shapes[0][:-1]
    models = [
        model("teacher", width=5 if case.any_width else 4, positions=positions),
        model("student", positions=positions),
    ]
    if case.labels is not None:  # Keras's distiller hands no labels to its losses.
        with pytest.raises(ValueError, match="labels=None. Pass `y`"):
            distillation_loss_of_an_epoch(named_layers(case.loss), *models)
        return

    actual, features = distillation_loss_of_an_epoch(named_layers(case.loss), *models)

    expected = case.expected(features["teacher_feature"], features["student_feature"])
    if not positions:
        final = case.expected(features["teacher_logits"], features["student_logits"])
        assert abs(expected - final) > 1e-3
    # tanh and Dense in float32.
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [None, "student_feature"])
@pytest.mark.parametrize(
    "name", ["soft targets", "channel alignment", "spatial uniformity"]
)
def test_without_a_layer_name_keras_distiller_passes_the_final_output(name, layer):
    case = CASES[name]
    actual, features = distillation_loss_of_an_epoch(
        copy_of(case.loss, student_layer_name=layer),
        model("teacher", classes=4),
        model("student", classes=4),
    )
    of_feature, of_logits = (
        case.expected(features["teacher_logits"], features[student])
        for student in ("student_feature", "student_logits")
    )
    assert abs(of_feature - of_logits) > 1e-3
    expected = of_feature if layer else of_logits
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)

"""The methods that `methods.py` compares, each a list of losses and weights.

A method is a function of a trained teacher and a new student that returns the model to
compile. To try your own method, write such a function and add it to `METHODS`.

If a method has a weight, its default is only a starting point. `name@weight` sets
another weight. Choose it on validation rows.
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import baselines
import candidates
from baselines import TERMS, weighted
from candidates import ALIGNED, aligned, fading_attention

from keras_dskd import losses

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import compare


@dataclass(frozen=True)
class Method:
    """A way to train a student.

    Attributes:
        make: Function of `(teacher, student, steps)` that returns the model to
            compile: the student, or a `Distiller`. It also gets `weight` if the method
            has one.
        group: Its group, for `--methods`.
        weight: Weight in the total, or `None` if there is no weight to choose.
        pairs: The teacher row for each student row: its `"own"`, `"any"` row, or a row
            of the same `"class"`.
        is_teacher_trained: Whether the teacher is trained.
        label_smoothing: Share of the labels that is spread evenly over all classes.
        axes: Position axes that its data need: 0 if tables are enough, 1 for sequences
            and images, 2 for images.
        rows: With few labels: train on `"all"` rows, or on the `"labeled"` rows.
        labeled_share: With few labels: their share of each batch, or 0 to draw all rows
            equally often.
        is_augmented: Whether images are shifted, with the same shift for both sides.
        is_averaged: Whether the student's weights are a moving average over steps.
        confidence: Distillation losses leave out unlabeled rows if the teacher's
            highest probability is below this value.
    """

    make: Callable
    group: str
    weight: float | None = None
    pairs: str = "own"
    is_teacher_trained: bool = True
    label_smoothing: float = 0.0
    axes: int = 0
    rows: str = "all"
    labeled_share: float = 0.25
    is_augmented: bool = False
    is_averaged: bool = False
    confidence: float = 0.0


METHODS = {
    "student": Method(compare.alone, "methods", rows="labeled"),
    "soft_targets": Method(compare.soft_targets, "methods"),
    "dskd": Method(compare.dskd, "methods"),
    "recommended": Method(compare.recommended, "methods"),
    # Controls: rule out other causes of a gain.
    "label_smoothing": Method(compare.alone, "controls", label_smoothing=0.1),
    "soft_targets_shuffled": Method(compare.soft_targets, "controls", pairs="any"),
    "recommended_shuffled": Method(compare.recommended, "controls", pairs="any"),
    "recommended_shuffled_in_class": Method(
        compare.recommended, "controls", pairs="class"
    ),
    "recommended_untrained": Method(
        compare.recommended, "controls", is_teacher_trained=False
    ),
    # Added to soft targets, and instead of them.
    **{
        name: Method(
            functools.partial(weighted, terms),
            "baselines",
            weight=weight,
            axes=int(terms is baselines.attention_transfer),
        )
        for name, (terms, weight) in TERMS.items()
    },
    "decoupled": Method(
        functools.partial(weighted, baselines.decoupled, soft_targets=False),
        "baselines",
        weight=0.5,
    ),
    "reused_classifier": Method(baselines.reused_classifier, "baselines"),
    **{
        f"{name}_alone": Method(
            functools.partial(weighted, terms, soft_targets=False),
            "alone",
            weight=weight,
            axes=int(terms is baselines.attention_transfer),
        )
        for name, (terms, weight) in TERMS.items()
    },
}

_CANDIDATES = {
    "aligned": {},  # `recommended`, with a constant weight to choose.
    "three_depths": {"blocks": ("block2", "block3", "features")},
    "positions": {"rows": "positions"},
    "with_contrast": {"contrast": 0.3},
    "standardized": {"loss": losses.FitNet},
}
METHODS.update(
    {
        name: Method(
            functools.partial(aligned, **options),
            "candidates",
            weight=ALIGNED,
            axes=int("rows" in options),
        )
        for name, options in _CANDIDATES.items()
    }
)

METHODS["fading_attention"] = Method(
    fading_attention, "candidates", weight=30.0, axes=1
)

# For few labels.
METHODS.update(
    {
        "soft_targets_on_labeled": Method(compare.soft_targets, "few", rows="labeled"),
        "recommended_on_labeled": Method(compare.recommended, "few", rows="labeled"),
        "teacher_only": Method(candidates.teacher_only, "few"),
        **{
            f"{name}_t{temperature:g}": Method(
                functools.partial(make, temperature=temperature), "few"
            )
            for name, make in {
                "soft_targets": candidates.soft_targets,
                "recommended": candidates.recommended,
            }.items()
            for temperature in (1.0, 2.0, 4.0)
            if (name, temperature) != ("soft_targets", 4.0)
        },
        "soft_targets_auto": Method(
            functools.partial(candidates.soft_targets, temperature="auto"), "few"
        ),
    }
)

# Further choices for few labels, with soft targets.
METHODS.update(
    {
        "labels": Method(candidates.label_weight, "few_choices", weight=0.5),
        **{
            f"labeled_share_{share:g}": Method(
                compare.soft_targets, "few_choices", labeled_share=share
            )
            for share in (0, 0.1, 0.5)
        },
        **{
            f"confident_{confidence:g}": Method(
                compare.soft_targets, "few_choices", confidence=confidence
            )
            for confidence in (0.8, 0.95)
        },
        **{
            f"{name}_{word}": Method(
                make,
                "few_choices",
                rows="labeled" if name == "student" else "all",
                axes=2 if word == "augmented" else 0,
                **{f"is_{word}": True},
            )
            for name, make in {
                "student": compare.alone,
                "soft_targets": compare.soft_targets,
                "recommended": compare.recommended,
            }.items()
            for word in ("averaged", "augmented")
        },
    }
)

GROUPS = (
    "methods",
    "controls",
    "baselines",
    "alone",
    "candidates",
    "few",
    "few_choices",
)


def chosen(names, axes):
    """The methods for a list of names.

    Args:
        names: Keys of `METHODS`, `name@weight`, or `GROUPS`.
        axes: Position axes of the data: 0 for tables, 1 for sequences, 2 for images.
            Methods of a group that need more are left out, and a message says so.

    Returns:
        Dict of name -> `Method` with its weight.

    Raises:
        SystemExit: If a method is unknown, or does not suit the data.
    """
    found = {}
    for name in names:
        members = [key for key, method in METHODS.items() if method.group == name]
        for member in members or [name]:
            method = _method(member)
            needed = ("tables", "sequences or images", "images")[method.axes]
            if axes >= method.axes:
                found[member] = method
            elif members:
                print(f"{member} needs {needed}, and is left out.")
            else:
                raise SystemExit(f"{member} needs {needed}.")
    return found


def _method(name):
    key, has_weight, weight = name.partition("@")
    if key not in METHODS:
        raise SystemExit(
            f"There is no method {key!r}. There are the groups {', '.join(GROUPS)} and "
            f"the methods {', '.join(METHODS)}"
        )
    method = METHODS[key]
    if has_weight:
        if method.weight is None:
            raise SystemExit(f"{name}: {key} has no weight to choose.")
        try:
            method = replace(method, weight=float(weight))
        except ValueError as error:
            raise SystemExit(f"{name}: write a number after the @.") from error
    if method.weight is None:
        return method
    # Set the weight here, so that all methods have the same signature.
    return replace(method, make=functools.partial(method.make, weight=method.weight))

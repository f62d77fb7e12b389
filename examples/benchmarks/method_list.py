"""The methods that `methods.py` compares, each a list of losses and weights.

A method makes the model to compile out of a trained teacher and a new student. To try
one of your own, write such a function and add it to `METHODS`.

Where a method has a weight, its own is a start, and `name@weight` takes another. Choose
it on validation rows.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import compare


@dataclass(frozen=True)
class Method:
    """A way to train a student.

    Attributes:
        make: Function of `(teacher, student, steps)` that returns the model to
            compile: the student, or a `Distiller`. Takes `weight` where there is one.
        group: What it belongs to, for `--methods`.
        weight: Weight in the total, or `None` if it has none to choose.
        pairs: Which teacher row a student's row is shown with: `"own"`, that of
            `"any"` row, or that of a row of the same `"class"`.
        is_teacher_trained: Whether the teacher has learnt anything.
        label_smoothing: Share of the labels that goes to all classes alike.
        axes: Axes of positions that its data must have: 0 if tables will do, 1 for
            sequences and images, 2 for images.
        rows: Where few rows have labels: it trains on `"all"`, or on the `"labeled"`.
        labeled_share: Where few rows have labels: their share of each batch, or 0 to
            draw all rows alike.
        is_augmented: Whether images are shifted, both by one draw.
        is_averaged: Whether the student's weights are a moving average over steps.
        confidence: The teacher's terms leave out unlabeled rows on which its highest
            probability is below this.
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
    # Controls: what a gain is not due to.
    "label_smoothing": Method(compare.alone, "controls", label_smoothing=0.1),
    "soft_targets_shuffled": Method(compare.soft_targets, "controls", pairs="any"),
    "recommended_shuffled": Method(compare.recommended, "controls", pairs="any"),
    "recommended_shuffled_in_class": Method(
        compare.recommended, "controls", pairs="class"
    ),
    "recommended_untrained": Method(
        compare.recommended, "controls", is_teacher_trained=False
    ),
    # Beside soft targets, and in place of them.
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

# Where few rows have labels.
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
            for temperature in (1.0, 2.0)
        },
    }
)

# What may be chosen there, with soft targets.
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
    """The methods that names stand for.

    Args:
        names: Keys of `METHODS`, `name@weight`, or `GROUPS`.
        axes: Axes of positions that the data have: 0 of tables, 1 of sequences, 2 of
            images. Of a group, methods that need more are left out, which is printed.

    Returns:
        Dict of name -> `Method`, the weight set.

    Raises:
        SystemExit: If there is no such method, or it does not fit the data.
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
    # Bound here, so that all methods are called alike.
    return replace(method, make=functools.partial(method.make, weight=method.weight))

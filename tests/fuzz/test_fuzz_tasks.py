"""Whole distillers of any task: values computed in NumPy, or a clear error."""

import contextlib

import numpy as np
import pytest
from fuzz import recipe_cases, task_specs
from fuzz.fuzzing import SEED, fuzzed
from fuzz.task_cases import Case
from fuzz.task_values import Undecided
from fuzz.verdict import Refused, answer
from hypothesis import strategies as st

pytestmark = [
    # A weight of 0, or an output that no loss reads, leaves some without gradient.
    pytest.mark.filterwarnings("ignore:Gradients do not exist"),
    # Logits of a few samples may all be between 0 and 1.
    pytest.mark.filterwarnings("ignore:.* as if they were probabilities"),
]

# Hypothesis prefers some numbers, such as 0: give each backend other cases for them.
SEEDS = st.integers(0, 2**32 - 1).map(lambda seed: (seed + 7919 * SEED) % 2**32)


# Losses in float32, times T² = 16, of the same outputs.
CLOSE = {"rtol": 5e-4, "atol": 5e-4}
# XLA computes in float32 what the policy rounds to bfloat16, outputs included.
CLOSE_IN_BFLOAT16 = {"rtol": 3e-2, "atol": 3e-2}


def assert_logs(logs, expected, close=CLOSE):
    for name, value in expected.items():
        if name in ("loss", "student_loss") and np.isnan(value):
            continue
        np.testing.assert_allclose(logs[name], value, err_msg=name, **close)
    assert logs["total_loss"] == logs["loss"]


def check(spec):
    case = Case(spec)
    try:
        expected = case.expected()
    except Refused:
        expected = None
    except Undecided:
        return
    is_valid = None if case.is_undecided() else expected is not None
    logs = answer(case.run, is_valid)
    if expected is not None:
        is_rounded = "bfloat16" in "".join(spec.policies)
        is_excess = is_rounded and spec.way == "compiled"
        assert_logs(logs, expected, CLOSE_IN_BFLOAT16 if is_excess else CLOSE)


@fuzzed("tasks", cases=4, share=0.5, spec=SEEDS.map(task_specs.draw))
def test_one_head(spec):
    check(spec)


@fuzzed(
    "tasks",
    cases=2,
    share=0.25,
    spec=SEEDS.map(lambda seed: task_specs.draw(seed, several=True)),
)
def test_two_heads_of_any_kind(spec):
    check(spec)


@fuzzed("tasks", cases=1, share=0.25, spec=SEEDS.map(recipe_cases.draw))
def test_recipes_fit_networks_and_tasks(spec):
    case = recipe_cases.RecipeCase(spec)
    try:
        due = case.output_loss()
    except Refused:
        due = None
    except Undecided:
        return
    with contextlib.redirect_stdout(None):  # Recipes print the layers they picked.
        made, logs = answer(case.run, due is not None)
    if due is not None:
        assert_logs(logs, case.expected(made, *due))

"""Check properties on drawn cases: a few by default, many on demand.

By default each backend runs a third of the cases, with its own fixed seed. Every run
draws the same cases.

Environment variables:
    FUZZ_CASES: Number of cases, spread over all properties. Faults are then grouped by
        cause and listed in a table at the end, instead of failing at the first.
    FUZZ_SEED: Seed of the cases, on every backend.
"""

import collections
import dataclasses
import functools
import gc
import math
import os
import re
import time

import keras
from fuzz.verdict import Fault, Refused, Wrong, told
from hypothesis import HealthCheck, Phase, given, seed, settings

TOTAL = int(os.environ.get("FUZZ_CASES", 0))
BACKENDS = ("torch", "tensorflow", "jax")
SEED = int(os.environ.get("FUZZ_SEED", BACKENDS.index(keras.backend.backend())))

#: After this many cases, free what Keras and JAX keep per model.
CASES_PER_SESSION = 300


@dataclasses.dataclass
class Tally:
    """Counts how the cases of one level ended."""

    ends: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    faults: dict = dataclasses.field(default_factory=dict)
    seconds: float = 0.0


#: Level -> `Tally`.
TALLIES = collections.defaultdict(Tally)


def fuzzed(level, cases=25, share=0.01, **strategies):
    """Decorate a check of one case: the result is a test that draws cases.

    Args:
        level: Line of the table that counts the cases.
        cases: Number of different cases by default, over all backends together.
        share: Part of `FUZZ_CASES` that this property gets.
        **strategies: A hypothesis strategy per argument.
    """

    def decorate(check):
        # Hypothesis draws the simplest case first, whatever the seed.
        count = 1 + math.ceil((cases - 1) / len(BACKENDS))
        if TOTAL:
            count = round(TOTAL * share)
        tally = TALLIES[level]

        @seed(SEED)
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )
        @given(**strategies)
        def cases_of(**case):
            try:
                _run(check, case, tally)
            except Fault as fault:
                if not TOTAL:
                    raise
                key = (check.__name__, fault.kind, _gist(fault, case))
                first = tally.faults.setdefault(key, [0, fault, case])
                first[0] += 1

        @functools.wraps(check, updated=())
        def test():
            before, began = set(tally.faults), time.perf_counter()
            cases_of()
            tally.seconds += time.perf_counter() - began
            new = [key for key in tally.faults if key not in before]
            assert not new, f"{len(new)} faults, listed at the end"

        del test.__wrapped__  # pytest would look for fixtures named as the arguments
        return test

    return decorate


def _run(check, case, tally):
    if sum(tally.ends.values()) % CASES_PER_SESSION == CASES_PER_SESSION - 1:
        _forget()
    try:
        check(**case)
    except Refused:
        tally.ends["clear error"] += 1
    except Fault as fault:
        tally.ends[fault.kind] += 1
        raise
    except AssertionError as error:
        tally.ends["wrong answer"] += 1
        raise Wrong(str(error)) from error
    except Exception as error:
        tally.ends["wrong answer"] += 1
        raise Wrong(f"The check itself fails: {told(error)}") from error
    else:
        tally.ends["right"] += 1


def _forget():
    """Free what Keras and JAX keep for each model and each compiled program."""
    keras.utils.clear_session()
    gc.collect()
    if keras.backend.backend() == "jax":
        import jax

        jax.clear_caches()


def _gist(fault, case):
    """A key that faults with one cause share: the error's words without numbers."""
    if fault.kind == "wrong answer" and " of " not in str(fault):
        return str(case.get("name", ""))
    return re.sub(r"[\d.e+-]+", "0", str(fault)[:160])


def table():
    """A table of how all cases ended, as lines of text."""
    kinds = ("right", "clear error", "unclear error", "wrong answer")
    lines = [
        f"{'level':<12}{'cases':>8}"
        + "".join(f"{kind:>15}" for kind in kinds)
        + f"{'cases/s':>10}"
    ]
    totals = collections.Counter()
    seconds = 0.0
    for level, tally in TALLIES.items():
        lines.append(_line(level, tally.ends, kinds, tally.seconds))
        totals += tally.ends
        seconds += tally.seconds
    lines.append(_line("all", totals, kinds, seconds))
    for level, tally in TALLIES.items():
        for (name, kind, _), (count, fault, case) in tally.faults.items():
            lines += ["", f"{level}: {name}: {kind}, {count} times. The first:"]
            lines += [f"  {case}", *(f"  {line}" for line in str(fault).split("\n"))]
    return lines


def _line(level, ends, kinds, seconds):
    cases = sum(ends.values())
    return (
        f"{level:<12}{cases:>8}"
        + "".join(f"{ends[kind]:>15}" for kind in kinds)
        + f"{cases / max(seconds, 1e-9):>10.1f}"
    )

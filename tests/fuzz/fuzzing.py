"""Properties over drawn cases: few and repeatable by default, many on demand.

With `FUZZ_CASES=10000` in the environment that many cases are spread over all
properties; faults are then counted and told apart rather than raised one by one, and a
table is printed at the end. `FUZZ_SEED` draws others. A case is drawn from a seed, and
so is the same whenever it is run.
"""

import collections
import dataclasses
import functools
import gc
import os
import re
import time

import keras
from fuzz.verdict import Fault, Refused, Wrong, told
from hypothesis import HealthCheck, Phase, given, seed, settings

TOTAL = int(os.environ.get("FUZZ_CASES", 0))
SEED = int(os.environ.get("FUZZ_SEED", 0))

#: What is kept for every model that was ever made is dropped so often.
CASES_A_SESSION = 300


@dataclasses.dataclass
class Tally:
    """How the cases of one level ended."""

    ends: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    faults: dict = dataclasses.field(default_factory=dict)
    seconds: float = 0.0


#: Level -> `Tally`.
TALLIES = collections.defaultdict(Tally)


def fuzzed(level, cases=25, share=0.01, **strategies):
    """Makes a test of a function of one case, drawn from strategies.

    Args:
        level: Which line of the table the cases count for.
        cases: How many are drawn by default.
        share: Which part of `FUZZ_CASES` is drawn for this property.
        **strategies: A hypothesis strategy an argument.
    """

    def decorate(check):
        count = round(TOTAL * share) if TOTAL else cases
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

        del test.__wrapped__  # pytest would take the case's arguments for fixtures
        return test

    return decorate


def _run(check, case, tally):
    if sum(tally.ends.values()) % CASES_A_SESSION == CASES_A_SESSION - 1:
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
    """Drops what Keras and JAX keep for every model and every program."""
    keras.utils.clear_session()
    gc.collect()
    if keras.backend.backend() == "jax":
        import jax

        jax.clear_caches()


def _gist(fault, case):
    """What faults of one cause have in common: an error's words without numbers."""
    if fault.kind == "wrong answer" and " of " not in str(fault):
        return str(case.get("name", ""))
    return re.sub(r"[\d.e+-]+", "0", str(fault)[:160])


def table():
    """What became of all cases, as lines of text."""
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

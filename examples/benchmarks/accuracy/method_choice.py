"""Score on test rows what `keras_dskd.choose` would choose on validation rows.

For each seed, the candidate with the highest accuracy on validation rows is chosen. Its
run on test rows, which trained on all rows, counts as a run of the method `chosen`.
"""

from collections import Counter, defaultdict

from epoch_choice import trained_on


def with_chosen(records, candidates):
    """The records of test rows, plus one record per seed for the method `chosen`.

    Args:
        records: Records of validation rows and of test rows.
        candidates: Names of methods. Of equally good methods, the first is chosen.

    Returns:
        Records of test rows. Records of `chosen` name the chosen method in `chosen`.

    Raises:
        SystemExit: If there are no runs on validation rows. Also if a seed has runs of
            some candidates on both kinds of rows, but lacks other candidates or has one
            twice.
    """
    runs = {split: defaultdict(dict) for split in ("validation", "test")}
    for record in records:
        if record["method"] in candidates:
            where = (*trained_on(record), record["backend"], record["seed"])
            found = runs[record["split"]][where]
            found.setdefault(record["method"], []).append(record)
    both = [where for where in runs["test"] if where in runs["validation"]]
    if not both:
        raise SystemExit(
            "Methods are chosen by runs on validation rows, and there are no runs on "
            "validation rows of the same data and seeds. Make them: methods.py --on "
            "validation"
        )
    chosen = []
    for where in both:
        one = {
            split: {name: _one(name, runs[split][where], where) for name in candidates}
            for split in runs
        }
        best = max(candidates, key=lambda name: one["validation"][name]["accuracy"])
        run = one["test"][best]
        chosen.append({**run, "method": "chosen", "weight": None, "chosen": best})
    return [record for record in records if record["split"] == "test"] + chosen


def counts(runs):
    """How often each method was chosen, as text.

    Args:
        runs: Dict of seed -> record of the method `chosen`.
    """
    found = Counter(record["chosen"] for record in runs.values())
    return ", ".join(f"{name} {count}" for name, count in found.most_common())


def _one(name, found, where):
    """The only run of a method."""
    runs = found.get(name, [])
    if len(runs) == 1:
        return runs[0]
    split = next(iter(found.values()))[0]["split"]
    what = "has several runs" if runs else "was not run"
    raise SystemExit(f"{where[0]}, seed {where[-1]}: {name} {what} on {split} rows.")

"""Results as JSON lines: one per run, on disk before the next run begins."""

import json
import os
from pathlib import Path

#: The results of a run. All other entries of a record identify the run.
RESULTS = (
    "accuracy",
    "nll",
    "ece",
    "structure",
    "teacher_accuracy",
    "train_samples",
    "scored_samples",
    "seconds",
)


def key(record):
    """Text that identifies the run of a record: equal runs have equal texts."""
    kept = {name: value for name, value in record.items() if name not in RESULTS}
    return json.dumps(kept, sort_keys=True)


class Records:
    """The records of a file, to which you can add more.

    If a killed run left an incomplete last line, that line is removed, and a message
    says so. Only one process at a time may write to a file.

    Args:
        path: The file, which is created with the first record.

    Raises:
        SystemExit: If the file contains anything else.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._keys = set()
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            print(f"{self.path}: the last line is incomplete, and is dropped.")
            os.truncate(self.path, len(whole))
        self._keys = {key(record) for record in read([self.path])}

    def __contains__(self, run):
        return key(run) in self._keys

    def add(self, record):
        """Writes one record, and waits until it is on disk."""
        with self.path.open("a") as file:
            # No NaN: it is neither valid JSON nor a result.
            file.write(json.dumps(record, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._keys.add(key(record))


def read(paths):
    """The records of files.

    Raises:
        SystemExit: If a file cannot be read or contains anything else, or if a run
            occurs twice.
    """
    found = {}
    for path in paths:
        try:
            lines = Path(path).read_text().splitlines()
        except OSError as error:
            raise SystemExit(f"{path} cannot be read: {error}") from error
        for number, line in enumerate(lines, start=1):
            where = f"{path}, line {number}"
            try:
                record = json.loads(line)
                missing = {"method", "seed", *RESULTS} - set(record)
            except (ValueError, TypeError) as error:
                raise SystemExit(f"{where}: not a record: {error}") from error
            if missing:
                raise SystemExit(f"{where}: the record lacks {sorted(missing)}")
            if key(record) in found:
                raise SystemExit(f"{where}: this run is in {found[key(record)][0]} too")
            found[key(record)] = (where, record)
    return [record for _, record in found.values()]


def kept(records, where):
    """The records that match all of `["name=value", ...]`.

    Raises:
        SystemExit: If records have no such entry, or no record matches.
    """
    for condition in where:
        name, _, value = condition.partition("=")
        known = {str(record.get(name)) for record in records}
        records = [record for record in records if str(record.get(name)) == value]
        if not records:
            raise SystemExit(
                f"--where {condition}: {name} is {', '.join(sorted(known))}."
            )
    return records


def of_methods(records, names, always):
    """The records of some methods.

    Args:
        records: The records.
        names: The methods, or `None` for all.
        always: Further methods to keep, if they were run.

    Raises:
        SystemExit: If a method was not run.
    """
    if names is None:
        return records
    known = {record["method"] for record in records}
    if set(names) - known:
        raise SystemExit(
            f"Not run: {', '.join(sorted(set(names) - known))}. Run were: "
            f"{', '.join(sorted(known))}"
        )
    return [record for record in records if record["method"] in {*names, *always}]

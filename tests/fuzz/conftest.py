"""Prints the table of a run with `FUZZ_CASES`."""

from fuzz import fuzzing


def pytest_terminal_summary(terminalreporter):
    if fuzzing.TOTAL:
        terminalreporter.section("cases")
        for line in fuzzing.table():
            terminalreporter.write_line(line)

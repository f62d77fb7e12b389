"""Prints the table of a run over many cases."""

from fuzz import fuzzing


def pytest_terminal_summary(terminalreporter):
    if fuzzing.TOTAL:
        terminalreporter.section("cases")
        for line in fuzzing.table():
            terminalreporter.write_line(line)

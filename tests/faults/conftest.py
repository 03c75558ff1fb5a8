"""Counts what was tried and survived, and prints the table at the end."""

from collections import defaultdict

import pytest


class Tally:
    """How often a fault was injected, and how often the run survived it."""

    def __init__(self, entry):
        self._entry = entry

    def tried(self):
        self._entry["tried"] += 1

    def survived(self, times=1):
        self._entry["survived"] += times


@pytest.fixture
def fault(request):
    """``fault("SIGKILL")`` starts a row of the table."""

    def start(name):
        entry = {"fault": name, "tried": 0, "survived": 0}
        request.node.user_properties.append(("fault", entry))
        return Tally(entry)

    return start


def pytest_terminal_summary(terminalreporter):
    """Prints the table; the counts come with the reports, also from workers."""
    rows = defaultdict(lambda: [0, 0])
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) != "call":
                continue
            for name, entry in report.user_properties:
                if name == "fault":
                    rows[entry["fault"]][0] += entry["tried"]
                    rows[entry["fault"]][1] += entry["survived"]
    if not rows:
        return
    terminalreporter.section("faults: tried, survived, lost")
    width = max(map(len, rows))
    for name, (tried, survived) in rows.items():
        terminalreporter.line(
            f"{name:<{width}}  {tried:5}  {survived:5}  {tried - survived:5}"
        )

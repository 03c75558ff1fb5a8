"""Times of several programs, taken in turns so that a busy machine slows all alike.

Every round calls each program once, in rotated order; a ratio is the median over rounds
of two programs' times in the same round, with the smallest and largest beside it.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

# Threads of one library may still spin when the other's turn comes.
_PAUSE_SECONDS = 0.02
# Shorter calls are repeated until a measurement takes about this long.
_SHORTEST_SECONDS = 0.03


class Effort(NamedTuple):
    """How long to measure one program: rounds, within limits, in so many seconds."""

    seconds: float = 6.0
    min_rounds: int = 3
    max_rounds: int = 15


class Ratio(NamedTuple):
    """Median, smallest and largest ratio of two times over common rounds."""

    median: float
    low: float
    high: float
    rounds: int


class Times(NamedTuple):
    """Seconds of each program by round; None in rounds that it sat out."""

    seconds: dict[str, list[float | None]]

    def of(self, name: str) -> list[float]:
        """The times of one program."""
        return [s for s in self.seconds[name] if s is not None]

    def median(self, name: str) -> float:
        """The median time of one program, seconds."""
        return statistics.median(self.of(name))

    def ratio(self, name: str, reference: str) -> Ratio:
        """How much longer ``name`` takes than ``reference``."""
        pairs = zip(self.seconds[name], self.seconds[reference], strict=True)
        ratios = [a / b for a, b in pairs if a is not None and b is not None]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios), len(ratios))


def take_turns(
    calls: Mapping[str, Callable[[], Any]],
    effort: Effort,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Times each call; each waits for its result.

    Args:
        calls: name to a call without arguments.
        effort: slow programs sit out rounds, but for ``min_rounds`` of them.
        clock: what is read before and after. ``time.process_time`` on one core and
            with one thread barely feels what else runs on the machine.
    """
    estimates = {name: _first_times(call) for name, call in calls.items()}
    rounds = {name: _rounds(seconds, effort) for name, seconds in estimates.items()}
    total = max(rounds.values())
    times: dict[str, list[float | None]] = {name: [] for name in calls}
    names = list(calls)
    for index in range(total):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            takes_part = (index * rounds[name]) % total < rounds[name]
            repeats = math.ceil(_SHORTEST_SECONDS / max(estimates[name], 1e-6))
            times[name].append(
                _time(calls[name], repeats, clock) if takes_part else None
            )
    return Times(times)


def _rounds(seconds: float, effort: Effort) -> int:
    wanted = int(effort.seconds / max(seconds, _SHORTEST_SECONDS))
    return min(max(wanted, effort.min_rounds), effort.max_rounds)


def _first_times(call: Callable[[], Any]) -> float:
    """Seconds of a call once warm; a slow call's first is good enough an estimate."""
    seconds = _time(call, 1)
    return seconds if seconds > 1 else _time(call, 1)


def _time(
    call: Callable[[], Any],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Seconds of one call, the mean over ``repeats`` in a row."""
    time.sleep(_PAUSE_SECONDS)
    started = clock()
    for _ in range(repeats):
        call()
    return (clock() - started) / repeats

"""Numbers with units, for people to read."""

_PREFIXES = {0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P"}


def amount(number: float, unit: str) -> str:
    """Returns "14.9 GFLOP" for 1.486e10 and "FLOP"."""
    power = max((p for p in _PREFIXES if number >= 10**p), default=0)
    return f"{_rounded(number / 10**power, 3)} {_PREFIXES[power]}{unit}"


def duration(hours: float) -> str:
    """Returns hours as "12 s", "4.4 min" or "2.2 h"."""
    if hours < 1 / 60:
        return f"{_rounded(3600 * hours, 2)} s"
    if hours < 1:
        return f"{_rounded(60 * hours, 2)} min"
    return f"{_rounded(hours, 3)} h"


def _rounded(number: float, digits: int) -> str:
    return f"{float(f'{number:.{digits}g}'):,g}"

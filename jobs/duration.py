"""Times as a person says them."""

from __future__ import annotations

_UNITS = (("d", 86400), ("h", 3600), ("min", 60))
_LETTERS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = r"(?P<number>[1-9][0-9]{0,5})(?P<unit>[smhd]?)"
"""A regular expression: a whole number of seconds, minutes, hours, days; of hours where no unit is said."""


def seconds_of(number: str, unit: str) -> int:
    """Seconds of the two groups of `DURATION`."""
    return int(number) * _LETTERS[unit or "h"]


def said_duration(seconds: int) -> str:
    """A time in the largest unit of which it is two and more and nothing else: `60 s`, `90 min`, `12 h`, `7 d`."""
    for unit, size in _UNITS:
        if seconds >= 2 * size and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"

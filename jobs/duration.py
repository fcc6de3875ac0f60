"""Times as a person says them."""

from __future__ import annotations

_UNITS = (("d", 86400), ("h", 3600), ("min", 60))


def said_duration(seconds: int) -> str:
    """A time in the largest unit of which it is two and more and nothing else: `60 s`, `90 min`, `12 h`, `7 d`."""
    for unit, size in _UNITS:
        if seconds >= 2 * size and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"

"""Records of runs that cannot be read: one line about all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from jobs.console import plain

LeftOut = Callable[[str], object]
"""Is told why a record is left out."""

_LISTED = 3


def left_out_warning(reasons: Iterable[str]) -> str:
    """The line.

    Args:
        reasons: why each cannot be read; of those that say the same one is told.

    Returns:
        A warning; empty where nothing is left out.
    """
    listed = list(dict.fromkeys(reasons))
    if not listed:
        return ""
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return plain(f"warning: runs are left out: {'; '.join(listed[:_LISTED])}{more}")

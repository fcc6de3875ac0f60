"""How a worker's process keeps memory that was freed."""

from __future__ import annotations

import ctypes

_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = -8, -3, -1  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let the C library hand freed memory out again in place of giving it back to the system.

    By default every tensor above 32 MB, and in threads every large one, is mapped anew, and the system clears each of
    its pages on first touch: for a cheap model that takes several times as long as the arithmetic.

    Returns:
        Whether it could be set; other C libraries than glibc have no such setting.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    # One arena: those of threads cannot grow large enough.
    return all(
        mallopt(key, value) for key, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, 2**30), (_TRIM_THRESHOLD, 2**31 - 1))
    )

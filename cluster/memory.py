"""How workers' processes keep memory that was freed."""

from __future__ import annotations

from collections.abc import Mapping

# By default glibc maps every tensor above 32 MB anew (in a thread, every large one) and the system clears each of its
# pages on first touch: for a cheap model that takes several times as long as the arithmetic. With these, freed memory
# is handed out again. They are read when a process starts; other C libraries do not know them.
KEEP_FREED_MEMORY: Mapping[str, str] = {
    "MALLOC_ARENA_MAX": "1",  # the arenas of threads cannot grow large enough
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
}

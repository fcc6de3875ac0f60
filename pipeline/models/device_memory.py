"""Memory: how much a device has left, and allocations that do not go back to the system at every step."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

# Numbers of glibc's mallopt.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a device.

    Attributes:
        free: that may still be taken.
        total: that there are.
    """

    free: int
    total: int


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device or the host has no memory left."""
    # PyTorch's CPU allocator (on Linux, then on Windows), CUDA's libraries, Python's threads and the loader of native
    # libraries, at work where a package is first used, raise errors of other kinds.
    said = (
        "can't allocate memory",
        "not enough memory",
        "out of memory",
        "STATUS_ALLOC_FAILED",
        "can't start new thread",
        "annot allocate memory",
        "failed to map segment",
    )
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(one in str(error) for one in said)


def device_memory(device: torch.device) -> Memory:
    """Memory of a CUDA device; of the machine, within the limits of its control groups, for any other."""
    if device.type != "cuda":
        return _machine_memory(Path("/"))
    free, total = torch.cuda.mem_get_info(device)
    # What PyTorch holds without using it counts as free: it is the first that is handed out.
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return Memory(free + kept, total)


def _machine_memory(root: Path) -> Memory:
    """Memory of the machine whose file system starts at `root`."""
    info = root / "proc/meminfo"
    if not info.exists():
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Memory(total // 2, total)  # macOS does not say what is free in a way that Python can ask
    values = dict(line.split(":", 1) for line in info.read_text().splitlines())
    free, total = (int(values[key].split()[0]) * 1024 for key in ("MemAvailable", "MemTotal"))
    for limit, used in _limits(root):
        free, total = min(free, max(limit - used, 0)), min(total, limit)
    return Memory(free, total)


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use in bytes of each control group that this process is in (Linux, both versions)."""
    groups = root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / ("sys/fs/cgroup/memory" if controllers else "sys/fs/cgroup")
        limit_file = "memory.limit_in_bytes" if controllers else "memory.max"
        used_file = "memory.usage_in_bytes" if controllers else "memory.current"
        folder = top / path.lstrip("/")
        # Inside a container the path may be that outside it; then only the top is there.
        for group in (folder, *(parent for parent in folder.parents if parent.is_relative_to(top))):
            limit, used = group / limit_file, group / used_file
            if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
                yield int(text), int(used.read_text()) - _file_cache(group / "memory.stat")


def _file_cache(stat: Path) -> int:
    """Bytes that are counted as used, but only cache files."""
    values = dict(line.split(" ", 1) for line in stat.read_text().splitlines()) if stat.exists() else {}
    return int(values.get("total_inactive_file", values.get("inactive_file", "0")))


@contextmanager
def reused_allocations() -> Iterator[None]:
    """Inside the block the C library keeps the memory that is freed, and hands it out again.

    By default glibc gives large blocks back to the system at once, and each tensor of a step is paid for with page
    faults: a tenth to a quarter of the time of training a small network on a CPU. Afterwards, what was kept is given
    back. Other C libraries are left as they are.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt") or not hasattr(library, "malloc_trim"):
        yield
        return
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, -1)  # never
    library.mallopt(_TOP_PAD, 64 * 2**20)
    try:
        yield
    finally:
        # What the library adapts its thresholds to by itself, once it has seen large blocks.
        library.mallopt(_MMAP_MAX, 65536)
        library.mallopt(_MMAP_THRESHOLD, 32 * 2**20)
        library.mallopt(_TRIM_THRESHOLD, 64 * 2**20)
        library.mallopt(_TOP_PAD, 0)
        library.malloc_trim(0)

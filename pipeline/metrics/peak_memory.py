"""How much memory a piece of work takes at its peak."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


class PeakMemory:
    """What is taken at most, beyond what was held when this was made; one at a time in a process.

    On CUDA it is what PyTorch's allocator hands out on the device. Elsewhere it is the resident memory of the whole
    process, by Linux's books. Other threads count as well. Memory that was freed before but that the allocator keeps is
    resident already, so that what fits into it does not show: glibc's is told to give it back at the beginning, after
    which the work is somewhat slower; with another allocator the peak is a lower bound. NaN where the books cannot be
    had: not on Linux, or not allowed.
    """

    def __init__(self, device: torch.device) -> None:
        """Begin.

        Args:
            device: where the work is done; on CUDA, it has finished what it was given before.
        """
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = float(torch.cuda.memory_allocated(device))
        else:
            self._before = _restarted_resident()

    def taken(self) -> float:
        """Bytes taken at most since the beginning; zero or more, or NaN."""
        if math.isnan(self._before):
            return math.nan
        cuda = self._device.type == "cuda"
        peak = float(torch.cuda.max_memory_allocated(self._device)) if cuda else _resident("VmHWM")
        return peak if math.isnan(peak) else max(peak - self._before, 0.0)


def _restarted_resident() -> float:
    """Bytes resident now, which the kernel is told to take for the peak so far."""
    if not _CLEAR.exists():
        return math.nan
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is not None:
        give_back(0)
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return math.nan
    return _resident("VmRSS")


def _resident(entry: str) -> float:
    """An entry of the process's status in bytes: `VmRSS`, resident now, or `VmHWM`, its peak."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return math.nan
    found = [line.split()[1] for line in lines if line.startswith(f"{entry}:")]
    return float(found[0]) * 1024 if found else math.nan

"""What a device is called, for rows that say where they were computed."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def device_name(device: torch.device, info: Path = Path("/proc/cpuinfo")) -> str:
    """The name of a CUDA device, or of the machine's processor as far as the system tells it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return next(iter(named), "") or platform.processor() or platform.machine()

"""What a worker reserves, and how many of them a node holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.profile import Profile

_ROUNDING = 1e-9  # Ray counts in ten-thousandths


@dataclass(frozen=True, slots=True)
class Need:
    """What a worker reserves: CPU cores, GPUs (or a fraction of one) and bytes of memory."""

    cpus: float
    gpus: float
    memory: int

    @classmethod
    def of(cls, profile: Profile) -> Need:
        """What a profile asks for, a worker."""
        return cls(profile.cpus_per_worker, profile.gpus_per_worker, (profile.memory_mb_per_worker or 0) * 2**20)

    def fits(self, resources: Mapping[str, float]) -> int:
        """Workers that a node holds.

        Args:
            resources: amounts by Ray's names: `CPU`, `GPU`, `memory` in bytes.
        """
        counts = [int(resources.get("CPU", 0) / self.cpus + _ROUNDING)]
        gpus = resources.get("GPU", 0)
        if self.gpus >= 1:
            counts.append(int(gpus / self.gpus + _ROUNDING))
        elif self.gpus:
            # A fraction is one of a single GPU: 0.4 goes twice into each.
            whole, rest = divmod(gpus, 1)
            counts.append(int(whole) * int(1 / self.gpus + _ROUNDING) + int(rest / self.gpus + _ROUNDING))
        if self.memory:
            counts.append(int(resources.get("memory", 0) / self.memory + _ROUNDING))
        return min(counts)

    def __str__(self) -> str:
        amounts = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory}
        return said({name: amount for name, amount in amounts.items() if amount})


def said(resources: Mapping[str, float]) -> str:
    """Amounts in words, by Ray's names: `4 CPU, 1 GPU, 8.0 GiB`."""
    words = [f"{resources.get('CPU', 0):g} CPU"]
    words += [f"{resources['GPU']:g} GPU"] if resources.get("GPU") else []
    words += [f"{resources['memory'] / 2**30:.1f} GiB"] if resources.get("memory") else []
    return ", ".join(words)

"""What cells were trained with: which images, where these were kept, on which devices."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from pipeline.retrain.grid import Grid


@dataclass(frozen=True, slots=True)
class Placed:
    """Cells whose images were kept alike.

    Attributes:
        where: `held`, `streamed`, or another word or two that their rows begin with.
        why: the reason that the last of them gives.
        cells: how many.
    """

    where: str
    why: str
    cells: int


@dataclass(frozen=True, slots=True)
class Machine:
    """Cells that were trained alike.

    Attributes:
        device: its name.
        devices: how many of them trained a cell together.
        precision: of the passes while training.
        cells: how many.
    """

    device: str
    devices: int
    precision: str
    cells: int

    def __str__(self) -> str:
        device = f"{self.devices} × {self.device}" if self.devices > 1 else self.device
        return f"{device} in {self.precision}"


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the cells of a run were trained with.

    Attributes:
        train_images, test_images: the fewest and the most of a cell.
        left_out: samples of both splits that no cell has, for lack of a label or since they cannot be decoded.
        unranked: by method, of how many images it has no order of the pixels; those that lack none are left out.
        seconds: of training, over all cells.
        placed: where images were kept.
        machines: what trained; empty of cells that do not say so.
    """

    train_images: tuple[int, int]
    test_images: tuple[int, int]
    left_out: int
    unranked: dict[str, int]
    seconds: float
    placed: tuple[Placed, ...]
    machines: tuple[Machine, ...]

    @property
    def uneven(self) -> bool:
        """Whether cells had different numbers of images, and so are no fair comparison."""
        return any(low != high for low, high in (self.train_images, self.test_images))

    @property
    def sentences(self) -> list[str]:
        """Where images were kept and why, and what trained."""
        said = [
            f"images {one.where} in {one.cells:,} training{'' if one.cells == 1 else 's'}: {one.why}"
            for one in self.placed
        ]
        if len(self.machines) == 1:
            said.append(f"trained on {self.machines[0]}")
        elif self.machines:
            several = ", ".join(f"{one} ({one.cells:,})" for one in self.machines)
            said.append(f"trained on {several}; these round differently, which adds to what sets repeats apart")
        return said


def conditions(grid: Grid) -> Conditions:
    """What the cells of a run were trained with, as their rows say."""
    rows = grid.rows.to_pylist()
    why: dict[str, str] = {}
    where: Counter[str] = Counter()
    for row in rows:
        word, _, reason = (row["data"] or "").partition(": ")
        if word:
            where[word] += 1
            why[word] = reason
    machines = Counter(
        (row["device"], row["devices"] or 1, row["precision"] or "unknown precision") for row in rows if row["device"]
    )
    unranked: dict[str, int] = {}
    for row in rows:
        if row["method"] is not None and row["unranked"]:
            unranked[row["method"]] = max(unranked.get(row["method"], 0), row["unranked"])
    return Conditions(
        train_images=_range(rows, "train_images"),
        test_images=_range(rows, "test_images"),
        left_out=_range(rows, "left_out")[1],
        unranked=unranked,
        seconds=sum(row["seconds"] for row in rows),
        placed=tuple(Placed(word, why[word], count) for word, count in where.items()),
        machines=tuple(Machine(*kind, cells=count) for kind, count in machines.items()),
    )


def _range(rows: list[dict[str, Any]], column: str) -> tuple[int, int]:
    counts = [row[column] or 0 for row in rows] or [0]
    return min(counts), max(counts)

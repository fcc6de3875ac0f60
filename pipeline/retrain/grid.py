"""The cells of a remove-and-retrain benchmark, read back from what is committed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from pipeline.store import Output

_MEASURED = pa.schema(
    [
        ("accuracy", pa.float32()),
        ("train_accuracy", pa.float32()),
        ("train_images", pa.int32()),
        ("test_images", pa.int32()),
        ("seconds", pa.float32()),
        ("left_out", pa.int32()),
        ("data", pa.string()),
        ("fill", pa.list_(pa.uint8(), 3)),
        ("file", pa.string()),
        (
            "history",
            pa.list_(pa.struct([("number", pa.int32()), ("loss", pa.float32()), ("accuracy", pa.float32())])),
        ),
    ]
)
_NAMED = pa.schema(
    [
        ("model", pa.string()),
        ("network", pa.string()),
        ("kind", pa.string()),
        ("method", pa.string()),
        ("fraction", pa.float64()),
        ("repeat", pa.int32()),
    ]
)
CELLS = pa.schema([*_NAMED, *_MEASURED, ("path", pa.string())])
"""A row a trained cell: what it is, what was measured, and its folder under the output."""


class PlannedCell(Protocol):
    """What a run says of a cell, trained or not."""

    @property
    def kind(self) -> str:
        """`roar` or `kar`."""

    @property
    def fill(self) -> str:
        """What takes a pixel's place: `mean` or `black`."""

    @property
    def network(self) -> str:
        """The architecture that is trained."""

    @property
    def method(self) -> str | None:
        """Whose ranks decide; None for the clean arm."""

    @property
    def fraction(self) -> float:
        """Share of the pixels removed or kept; 0 for the clean arm."""

    @property
    def repeat(self) -> int:
        """Which of the initial weights."""


class CellEntry(Protocol):
    """A variant of a run, as its plan or its record has it."""

    @property
    def path(self) -> str:
        """Its folder."""

    @property
    def stage(self) -> str:
        """Which stage makes it; cells are made by `retrain`."""

    @property
    def model(self) -> str:
        """Id of the model whose maps decide."""

    @property
    def cell(self) -> PlannedCell | None:
        """What is trained; None for stages that train none."""


@dataclass(frozen=True, slots=True)
class GridCell:
    """A cell of a run.

    Attributes:
        model, network, kind, method, fraction, repeat: as `PlannedCell` and `CellEntry`.
        accuracy: share of the test images, masked like the training images, that are classified correctly; None where
            it is not trained.
    """

    model: str
    network: str
    kind: str
    method: str | None
    fraction: float
    repeat: int
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Grid:
    """The cells of a run, in the order of its record.

    Attributes:
        cells: all of them.
        rows: those that are trained, as `CELLS`.
    """

    cells: tuple[GridCell, ...]
    rows: pa.Table

    @property
    def missing(self) -> list[GridCell]:
        """Those that are not trained: a run was stopped, or their training failed."""
        return [cell for cell in self.cells if cell.accuracy is None]


def read_grid(output: Output, variants: Iterable[CellEntry]) -> Grid:
    """Read the cells of a run.

    What a cell is comes from the run and not from its row: a clean arm may have been trained by an earlier run of
    another kind.

    Args:
        output: where they are committed.
        variants: those of the run; stages other than `retrain` are passed over.
    """
    cells, rows = [], [CELLS.empty_table()]
    for entry in variants:
        if entry.stage != "retrain" or entry.cell is None:
            continue
        table = output.read(entry.path)
        measured = table.slice(0, 1).to_pylist()[0] if table is not None and table.num_rows else None
        cell = GridCell(
            model=entry.model,
            network=entry.cell.network,
            kind=entry.cell.kind,
            method=entry.cell.method,
            fraction=entry.cell.fraction,
            repeat=entry.cell.repeat,
            accuracy=float(measured["accuracy"]) if measured is not None else None,
        )
        cells.append(cell)
        if measured is not None:
            named = {name: getattr(cell, name) for name in _NAMED.names}
            rows.append(pa.Table.from_pylist([{**measured, **named, "path": entry.path}], schema=CELLS))
    return Grid(tuple(cells), pa.concat_tables(rows).combine_chunks())

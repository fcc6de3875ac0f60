"""The cells of a remove-and-retrain benchmark, read back from what is committed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from pipeline.store import Output

NAMED = pa.schema(
    [
        ("model", pa.string()),
        ("network", pa.string()),
        ("kind", pa.string()),
        ("method", pa.string()),
        ("fraction", pa.float64()),
        ("repeat", pa.int32()),
    ]
)
"""What a cell is."""

MEASURED = pa.schema(
    [
        ("accuracy", pa.float32()),
        ("train_accuracy", pa.float32()),
        ("train_images", pa.int32()),
        ("test_images", pa.int32()),
        ("left_out", pa.int32()),
        ("unranked", pa.int32()),
        ("seconds", pa.float32()),
        ("fill", pa.list_(pa.uint8(), 3)),
        ("data", pa.string()),
        ("device", pa.string()),
        ("devices", pa.int32()),
        ("precision", pa.string()),
        ("file", pa.string()),
        (
            "history",
            pa.list_(pa.struct([("number", pa.int32()), ("loss", pa.float32()), ("accuracy", pa.float32())])),
        ),
    ]
)
"""What is found by training it."""

CELLS = pa.schema([*NAMED, *MEASURED, ("path", pa.string())])
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
        test_images: how many these are; 0 where that is not known.
    """

    model: str
    network: str
    kind: str
    method: str | None
    fraction: float
    repeat: int
    accuracy: float | None
    test_images: int = 0


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
    """Read the cells of a run, many at a time.

    What a cell is comes from the run and not from its row: a clean arm may have been trained by an earlier run of
    another kind.

    Args:
        output: where they are committed.
        variants: those of the run; stages other than `retrain` are passed over.
    """
    entries = [(one, one.cell) for one in variants if one.stage == "retrain" and one.cell is not None]
    tables = output.together(output.read, dict.fromkeys(entry.path for entry, _ in entries))
    cells, rows = [], []
    for entry, planned in entries:
        measured = _measured(tables[entry.path])
        cell = GridCell(
            model=entry.model,
            network=planned.network,
            kind=planned.kind,
            method=planned.method,
            fraction=planned.fraction,
            repeat=planned.repeat,
            accuracy=float(measured["accuracy"]) if measured else None,
            test_images=measured.get("test_images") or 0,
        )
        cells.append(cell)
        if measured:
            named = {name: getattr(cell, name) for name in NAMED.names}
            rows.append({**measured, **named, "path": entry.path})
    return Grid(tuple(cells), pa.Table.from_pylist(rows, schema=CELLS))


def _measured(table: pa.Table | None) -> dict[str, Any]:
    """The row of a cell; empty where it is not trained."""
    if table is None or not table.num_rows:
        return {}
    # Weights may have been asked for later than the figures, and are a position of their own.
    row: dict[str, Any] = {**table.slice(0, 1).to_pylist()[0], "file": table["file"][-1].as_py()}
    return row

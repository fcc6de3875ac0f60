"""Rank: the order of every map's pixels, from which the masked data sets of every fraction follow."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.reduction import pixel_ranks
from pipeline.stages.column import stored_tensor, tensor_array
from pipeline.stages.stage import Outcome, Surroundings
from pipeline.stages.variant import Unit, Variant
from pipeline.store import Output

# Maps ranked together: a copy of each and its order are in memory.
_TOGETHER = 256
_SMALL = np.iinfo(np.uint16).max


@dataclass(frozen=True, slots=True)
class Mapped:
    """Maps (n, 1, H, W) float32 with where they belong."""

    positions: tuple[int, ...]
    ids: tuple[str, ...]
    maps: Tensor


class Rank:
    """Ranks (H, W) of each map's pixels, 0 for the most relevant; uint16, int32 for more than 65,536 pixels.

    They come from the float32 map, not from a picture of it, whose 256 levels would be ties; ties go to the lower pixel
    index. A map that is the same everywhere has no order, and its sample no row.
    """

    revision: ClassVar[int] = 2

    def load(self, around: Surroundings, variant: Variant, unit: Unit) -> Mapped:
        """The unit's committed maps."""
        table = around.output.read_all(str(variant.map_variant), unit.start, unit.stop)
        return Mapped(tuple(table["position"].to_pylist()), tuple(table["id"].to_pylist()), stored_tensor(table["map"]))

    def compute(self, around: Surroundings, variant: Variant, inputs: Mapped) -> Outcome:
        """Rows of position, id, ranks."""
        flat = inputs.maps.flatten(1)
        rows = (flat.amax(1) > flat.amin(1)).nonzero()[:, 0]
        pieces = [pixel_ranks(inputs.maps[some].to(around.device))[:, 0].cpu() for some in torch.split(rows, _TOGETHER)]
        ranks = torch.cat(pieces) if len(rows) else inputs.maps[:0, 0].int()
        if inputs.maps.shape[-2] * inputs.maps.shape[-1] <= _SMALL + 1:
            ranks = ranks.to(torch.uint16)
        ids = tuple(inputs.ids[row] for row in rows.tolist())
        table = pa.table(
            {
                "position": np.asarray(inputs.positions, dtype=np.int64)[rows.numpy()],
                "id": pa.array(ids, pa.string()),
                "ranks": tensor_array(ranks),
            }
        ).replace_schema_metadata({"heatline": json.dumps(variant.description())})
        return Outcome(table, (), ids)


def count_unranked(output: Output, variant: str, positions: NDArray[np.int64]) -> int:
    """How many of some positions have no committed ranks."""
    table = output.read(variant, columns=["position"])
    return len(positions) if table is None else int((~np.isin(positions, table["position"].to_numpy())).sum())


def stored_ranks(output: Output, variant: str, start: int, stop: int) -> tuple[NDArray[np.int64], Tensor]:
    """Committed ranks of positions start to stop − 1: those positions that have some, and (n, H, W) int32.

    Raises:
        RetryableError: not all of them are committed.
    """
    table = output.read_all(variant, start, stop)
    return table["position"].to_numpy(), stored_tensor(table["ranks"]).to(torch.int32)

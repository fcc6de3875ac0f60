"""Segment: the superpixels of every image, made once for all models and methods that want the same."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from pipeline.errors import ShardError
from pipeline.stages.column import stored_tensor, tensor_array
from pipeline.stages.image_cache import Samples
from pipeline.stages.stage import Outcome, Surroundings
from pipeline.stages.variant import Unit, Variant
from pipeline.store import Output
from pipeline.superpixel import superpixels


@dataclass(frozen=True, slots=True)
class Segmented:
    """Samples with their superpixels, (n, H, W) int32."""

    samples: Samples
    superpixels: Tensor


class Segment:
    """Superpixels (H, W) int32 of every sample that can be decoded; the others are failures of the predictions."""

    revision: ClassVar[int] = 1

    def load(self, around: Surroundings, variant: Variant, unit: Unit) -> Segmented:
        """All the work: it needs no device and so runs beside the other units' computing."""
        if variant.segmentation is None:
            raise ShardError(f"{variant.path}: no segmentation")
        samples = around.images(variant.split).get(unit.start, unit.stop)
        with ThreadPoolExecutor(around.job.options.decode_threads, thread_name_prefix="segment") as threads:
            found = list(threads.map(partial(superpixels, segmentation=variant.segmentation), samples.images))
        return Segmented(samples, torch.stack(found) if found else torch.empty(samples.images[:, 0].shape).int())

    def compute(self, around: Surroundings, variant: Variant, inputs: Segmented) -> Outcome:
        """Rows of position, id, superpixels."""
        samples = inputs.samples
        table = pa.table(
            {
                "position": np.asarray(samples.positions, dtype=np.int64),
                "id": pa.array(samples.ids, pa.string()),
                "superpixels": tensor_array(inputs.superpixels),
            }
        )
        return Outcome(table, (), samples.ids)


def segmented_positions(output: Output, variant: str, unit: Unit) -> set[int]:
    """The positions of a unit that have superpixels."""
    return set(output.read_all(variant, unit.start, unit.stop, ["position"])["position"].to_pylist())


def stored_superpixels(output: Output, variant: str, unit: Unit, positions: list[int]) -> Tensor:
    """The committed superpixels of some positions of a unit, (n, H, W) int32.

    Raises:
        ShardError: they are not there.
    """
    table = output.read_all(variant, unit.start, unit.stop)
    row_of = {position: row for row, position in enumerate(table["position"].to_pylist())}
    if missing := [position for position in positions if position not in row_of]:
        raise ShardError(f"{variant}: position {missing[0]} could not be decoded for superpixels and can be now")
    rows = torch.tensor([row_of[position] for position in positions], dtype=torch.long)
    return stored_tensor(table["superpixels"])[rows]

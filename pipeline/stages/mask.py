"""Mask: the masked images of a fraction as a data set of their own, for use elsewhere."""

from __future__ import annotations

import json
from typing import ClassVar

import numpy as np
import pyarrow as pa

from pipeline.errors import ShardError
from pipeline.stages.column import tensor_array
from pipeline.stages.masked_images import Masked, MaskedImages, fill_colour
from pipeline.stages.stage import Outcome, Surroundings
from pipeline.stages.variant import Unit, Variant


class Mask:
    """Rows of position, id, label, image and ranked, of the images that networks of the benchmark see.

    `image` is a fixed-shape tensor (H, W, 3) uint8 that the source `parquet` reads. `ranked` is false where the method
    has no order of the pixels, so that random ones were taken.
    """

    revision: ClassVar[int] = 2

    def load(self, around: Surroundings, variant: Variant, unit: Unit) -> Masked:
        """The unit's masked images."""
        if variant.cell is None:
            raise ShardError(f"{variant.path}: no fraction")
        fill = fill_colour(variant.cell, around.statistics(variant).mean)
        cache, ranks = around.images(variant.split), variant.rank_variants[variant.split]
        images = MaskedImages(around.output, cache, variant.cell, ranks, fill, around.noise)
        return images.read(unit.start, unit.stop)

    def compute(self, around: Surroundings, variant: Variant, inputs: Masked) -> Outcome:
        """The rows."""
        labels = inputs.labels.numpy()
        table = pa.table(
            {
                "position": np.asarray(inputs.positions, dtype=np.int64),
                "id": pa.array(inputs.ids, pa.string()),
                "label": pa.array(labels, pa.int64(), mask=labels < 0),
                "image": tensor_array(inputs.images.permute(0, 2, 3, 1)),
                "ranked": inputs.ranked.numpy(),
            }
        ).replace_schema_metadata({"heatline": json.dumps(variant.description())})
        return Outcome(table, (), inputs.ids)

"""A unit's samples in batches for the device."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from pipeline.contracts import Batch
from pipeline.models import Classifier
from pipeline.stages.image_cache import Samples

# Methods and metrics get this many forwards' worth of images in one call, so that those which drop finished rows can
# fill up with others.
FORWARDS_A_CALL = 4


def batches(samples: Samples, targets: Tensor, model: Classifier) -> Iterator[tuple[slice, Batch]]:
    """Batches on the model's device, with the rows of the samples that each holds."""
    size = FORWARDS_A_CALL * model.rows
    for start in range(0, len(samples.ids), size):
        rows = slice(start, start + size)
        images = samples.images[rows].to(model.device).float().div_(255)
        yield rows, Batch(images, targets[rows].to(model.device), samples.ids[rows])

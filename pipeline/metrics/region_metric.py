"""What metrics have in common that know where the object is."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from pipeline.contracts import Batch, Metric


class RegionMetric(Metric):
    """A metric that compares a map with a region of its image."""

    region_name: str = Field(
        "object", min_length=1, description="the region that a map should point at: object, or shortcut"
    )

    def region(self) -> str:
        """The region's name."""
        return self.region_name

    def inside(self, batch: Batch) -> Tensor:
        """The region of each image, (B, 1, H, W) bool; all false where an image has none.

        Raises:
            ValueError: the batch came without this region.
        """
        if self.region_name not in batch.regions:
            known = ", ".join(batch.regions) or "none"
            raise ValueError(f"{self.name}: the images have no region '{self.region_name}'; known: {known}")
        return batch.regions[self.region_name]

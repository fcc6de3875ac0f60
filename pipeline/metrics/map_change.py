"""How much of a map is left once the model is another: what the sanity checks have in common."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from pipeline.contracts import Batch, Context, Metric
from pipeline.metrics.similarity import SIMILARITIES, Comparison, Similarity
from pipeline.models.classifier import Classifier

SMALLEST = 1e-31
"""Largest magnitude below which float32 holds a few levels alone: the order of such a map is that of rounding."""


class MapChange(Metric):
    """A metric that explains the images on another model and compares the maps."""

    higher_is_better: ClassVar[bool] = False
    explains: ClassVar[bool] = True
    # A random map that never looked at the model is left as it was.
    against_chance: ClassVar[bool] = False
    samples: int | None = Field(
        64, ge=1, description="images looked at, drawn with the job's seed. null: all. Those without a map are left out"
    )
    similarity: tuple[Similarity, ...] = Field(
        SIMILARITIES,
        min_length=1,
        description="rank correlation of the values, of their magnitudes, structural similarity of maps in [-1, 1]",
    )

    @property
    def measures(self) -> tuple[str, ...]:
        """A measure a similarity."""
        return self.similarity

    def similarities(
        self, model: Classifier, batch: Batch, comparison: Comparison, context: Context
    ) -> dict[str, Tensor]:
        """Each similarity of the maps with those that the method gives on a model, (B,) float32.

        NaN where the method finds no map on it, or a constant one, or one that is nothing but underflow: such a map has
        no order, and what structural similarity says of it (near 0 for most maps, 1 for a constant one) is no
        similarity of explanations.

        Raises:
            ValueError: only the maps are known, not the method.
        """
        if context.explain is None:
            raise ValueError(f"{self.name}: explains another model; only the maps are known, not their method")
        found = context.explain(model, batch).detach()
        flat = found.flatten(1)
        low, high = flat.amin(1), flat.amax(1)
        usable = flat.isfinite().all(1) & (low != high) & (torch.maximum(-low, high) > SMALLEST)
        return {kind: torch.where(usable, value, torch.nan) for kind, value in comparison.compare(found).items()}

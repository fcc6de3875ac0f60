"""Sanity check by labels: does a map change when the model has learned labels that mean nothing?"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from pipeline.contracts import Batch, Context, Cost, Scores, Setting
from pipeline.metrics.map_change import MapChange
from pipeline.metrics.similarity import Comparison
from pipeline.models.classifier import Classifier
from pipeline.models.config import TrainingConfig


class SanityLabels(MapChange):
    """Similarity of the map to that of the same network trained on permuted labels; lower is better.

    The labels of the training split are permuted once with the job's seed, so that as many images have each class as
    before, and the architecture is trained on them from other initial weights. Both models explain the class that the
    map explains. The check is as good as the second network fits its labels: its accuracy on them stands with its
    weights, and a network of chance accuracy has learned nothing that a map could show. To fit them takes more epochs
    than to fit true labels, and no augmentation: see `training`.

    No value where the second model has no map, or a constant one, and where the map itself is constant.

    Source: Adebayo et al. 2018, "Sanity checks for saliency maps", Sec. 3.2 and 4.2, whose published code takes twice
        the epochs for permuted labels; Pan et al. 2021 (AGI), Fig. 8.
    """

    permutes: ClassVar[bool] = True
    reading: ClassVar[str] = "the map should change when the model has learned permuted labels (lower is better)"
    name: Literal["sanity_labels"] = "sanity_labels"
    training: TrainingConfig | None = Field(
        None,
        description="how the network is trained on permuted labels; default: as the model says of its own training",
    )

    def cost(self, setting: Setting, method: Cost = Cost()) -> Cost:
        """One map; the training is none of its own cost."""
        del setting
        return method

    def score(self, model: Classifier, batch: Batch, maps: Tensor, context: Context) -> Scores:
        """For each similarity its value (B,) in [-1, 1].

        Raises:
            ValueError: the model trained on permuted labels or the method is not known, or the maps are too small for
                `ssim`.
        """
        if context.permuted is None:
            raise ValueError("sanity_labels: needs the network trained on permuted labels")
        comparison = Comparison(maps, self.similarity)
        found = self.similarities(context.permuted, batch, comparison, context)
        return Scores({kind: found[kind] for kind in self.similarity})

"""The contract of attribution methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field
from torch import Tensor

from pipeline.contracts.base import (
    Batch,
    Calibration,
    Config,
    Cost,
    Reduction,
    Segmentation,
    Setting,
    SharedWork,
    Target,
)

if TYPE_CHECKING:
    from pipeline.models.classifier import Classifier
    from pipeline.noise import Noise


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a method says of a batch: its maps, and what else it found.

    Attributes:
        maps: (B, C or 1, H, W) float32, signed, before the reduction.
        columns: further results by name, one entry a sample: (B, …) tensors, or B sequences of numbers. They are stored
            beside the map under these names.
        failed: rows without a map, each with the reason; the other results of such a row are not stored.
    """

    maps: Tensor
    columns: Mapping[str, Tensor | Sequence[Sequence[float]]] = field(default_factory=dict)
    failed: Mapping[int, str] = field(default_factory=dict)


class AttributionMethod(Config, ABC):
    """An attribution method: its configuration is the method, and calling it gives maps.

    A subclass sets `name: Literal[...]`, its parameters with the paper's values as defaults, `revision`
    (raised when its numbers change), and a docstring with a `Source:` line. It defines one of three: `__call__`;
    `explain`, where there is more to tell than maps; or, in a `SharingMethod`, the shared work and how it is finished.
    """

    revision: ClassVar[int] = 1
    name: str
    reduction: Reduction = Field("sum", description="how channels become one map before ranking and storing")
    target: Target = Field("predicted", description="the class explained: the prediction, the label, or the runner-up")

    @abstractmethod
    def cost(self, setting: Setting) -> Cost:
        """Forwards and backwards for one sample; an upper bound where the method stops early."""

    def objection(self, model: Classifier, setting: Setting) -> str | None:
        """Why this method cannot explain this model on images of this size, or None. Asked before anything runs."""
        del model, setting
        return None

    def segmentation(self) -> Segmentation | None:
        """The superpixels that a batch has to bring along, or None. Without them the method divides the images."""
        return None

    def calibration(self) -> Calibration | None:
        """What has to be found out about the model before the method can run, or None."""
        return None

    def calibrated(self, found: Mapping[str, float]) -> Self:
        """The method with the numbers that its calibration found."""
        del found
        return self

    def explain(self, model: Classifier, batch: Batch, noise: Noise) -> Explanation:
        """The maps, with whatever else the method finds. Arguments as for a call."""
        return Explanation(self(model, batch, noise))

    @abstractmethod
    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """Signed attribution of every pixel to the explained output.

        Args:
            model: the classifier, in eval mode with frozen parameters; left as it was found.
            batch: B images with their targets.
            noise: draws keyed by sample, so that a map does not depend on its batch.

        Returns:
            (B, C or 1, H, W) float32 on the images' device, before the reduction.
        """


class SharingMethod(AttributionMethod):
    """A method that finishes work which other methods share."""

    @abstractmethod
    def shared_work(self) -> SharedWork:
        """The costly part."""

    @abstractmethod
    def finish(self, batch: Batch, work: Mapping[str, Tensor]) -> Tensor:
        """The maps, (B, C or 1, H, W), from what the shared work returned for this batch."""

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """Signed attribution, (B, C or 1, H, W)."""
        return self.finish(batch, self.shared_work()(model, batch, noise))

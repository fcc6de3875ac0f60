"""What the rooms hand each other: configurations, batches, and the contracts of methods and metrics."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

if TYPE_CHECKING:
    from pipeline.models.classifier import Classifier
    from pipeline.noise import Noise

Reduction = Literal["sum", "mean", "abs_sum", "max_abs", "positive_sum"]
Target = Literal["predicted", "label", "second"]
ExplainedOutput = Literal["logit", "probability", "log_probability"]


class Config(BaseModel):
    """A frozen set of parameters; unknown keys are errors. Its JSON form is part of a fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def digest(*parts: object) -> str:
    """A short stable hash of JSON-able values, 16 hexadecimal digits.

    Args:
        parts: configurations (dumped with every default), strings, numbers, None, or lists and dicts of them.

    Returns:
        The first 16 hexadecimal digits of the SHA-256 of their canonical JSON.
    """
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Batch:
    """Images to be explained, with the class to explain and a stable name for each.

    Attributes:
        images: (B, 3, H, W) float32 in [0, 1], RGB, not normalised.
        targets: (B,) int64, the class whose output is explained.
        ids: B names, the same in every sharding.
        superpixels: (B, H, W) int32, which superpixel each pixel belongs to, numbered from 0; None where the
            method did not ask for them (`AttributionMethod.segmentation`).
    """

    images: Tensor
    targets: Tensor
    ids: tuple[str, ...]
    superpixels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)


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


@dataclass(frozen=True, slots=True)
class Setting:
    """What a cost depends on beside the method's own parameters."""

    classes: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Passes through the model for one sample; an upper bound where a method may stop early.

    One forward is one image through the network; one backward is one image's gradient with respect to its input.
    """

    forwards: float = 0.0
    backwards: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.forwards + other.forwards, self.backwards + other.backwards)


class Segmentation(Config):
    """How an image is divided into superpixels by SLIC.

    Source: Achanta et al. 2012, as in scikit-image.
    """

    count: int = Field(500, ge=1, description="superpixels aimed at; SLIC makes somewhat more or fewer")
    compactness: float = Field(10.0, gt=0, description="weight of distance against colour")


class Calibration(Config, ABC):
    """Numbers that a method needs for a model, found once on a validation split. Equal ones are found once."""

    revision: ClassVar[int] = 1
    name: str
    samples: int = Field(1000, ge=1, description="images of the validation split")

    @abstractmethod
    def cost(self, setting: Setting) -> Cost:
        """Forwards and backwards for one sample of the validation split."""

    @abstractmethod
    def __call__(self, model: Classifier, batches: Iterable[Batch]) -> dict[str, float]:
        """The numbers, by name. The targets of the batches are the predicted classes."""


class SharedWork(Config, ABC):
    """The costly part that several methods finish differently. Equal ones are done once for a sample."""

    revision: ClassVar[int] = 1
    name: str

    @abstractmethod
    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Tensors by name, each (B, …), detached. Arguments as for `AttributionMethod`."""


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


class Metric(Config, ABC):
    """A measure of how faithful a map is, one row per sample."""

    revision: ClassVar[int] = 1
    higher_is_better: ClassVar[bool]
    name: str

    @abstractmethod
    def cost(self, setting: Setting) -> Cost:
        """Forwards and backwards for one sample; an upper bound where the metric stops early."""

    def curve_fractions(self, setting: Setting) -> list[float]:
        """Share of pixels changed at each point of the curve, in [0, 1]; empty where there is no curve."""
        del setting
        return []

    @abstractmethod
    def __call__(self, model: Classifier, batch: Batch, maps: Tensor) -> dict[str, Tensor]:
        """Scores of the maps of one batch.

        Args:
            model: the classifier that the maps explain.
            batch: B images with the targets that the maps explain.
            maps: (B, 1, H, W) float32, finite, higher is more relevant.

        Returns:
            Measures by name, each (B,) float32; the key `curve`, where there is one, is (B, P) float32 with P
            the length of `curve_fractions`.
        """

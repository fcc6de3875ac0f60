"""What methods and metrics have in common: configurations, batches, costs, and work that is done once."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

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
        regions: where things are, by name (`object`, `shortcut`), each (B, 1, H, W) bool, true inside; empty where the
            data set knows of none.
    """

    images: Tensor
    targets: Tensor
    ids: tuple[str, ...]
    superpixels: Tensor | None = None
    regions: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a cost depends on beside the method's or metric's own parameters.

    Attributes:
        classes: logits of the model.
        height, width: of the images.
        blocks: names of the model's blocks, in the order in which they run (`pipeline.models.block`).
        layers: names of its layers with parameters, in that order.
    """

    classes: int
    height: int
    width: int
    blocks: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cost:
    """Passes through the model for one sample; an upper bound where a method may stop early.

    One forward is one image through the network; one backward is one image's gradient with respect to its input.
    """

    forwards: float = 0.0
    backwards: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.forwards + other.forwards, self.backwards + other.backwards)

    def __mul__(self, times: float) -> Cost:
        return Cost(self.forwards * times, self.backwards * times)


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

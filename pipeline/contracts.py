"""What the rooms hand each other: configurations, batches, and the contracts of methods and metrics."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
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
    """

    images: Tensor
    targets: Tensor
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


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


class AttributionMethod(Config, ABC):
    """An attribution method: its configuration is the method, and calling it gives maps.

    A subclass sets `name: Literal[...]`, its parameters with the paper's values as defaults, `revision`
    (raised when its numbers change), and a docstring with a `Source:` line.
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

"""The contract of metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor

from pipeline.contracts.base import Batch, Calibration, Config, Cost, Setting, SharedWork
from pipeline.noise import Noise

if TYPE_CHECKING:
    from pipeline.models.classifier import Classifier
    from pipeline.models.randomise import Randomisation


@dataclass(frozen=True, slots=True)
class Scores:
    """What a metric says of a batch.

    Attributes:
        measures: by name, each (B,) float32; NaN for a sample that has none.
        curves: by the name of their measure, each (B, P) float32 with P the length of `Metric.curve_axis`.
    """

    measures: Mapping[str, Tensor]
    curves: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Context:
    """What a metric may use beside the model, the images and the maps.

    Attributes:
        noise: draws keyed by sample.
        explain: the method of the maps once more, on another model or other images: maps (B, 1, H, W) after its
            reduction, NaN where it finds none. None where only the maps are known.
        share: keeps results that several metrics and methods have in common, so that they are computed once for a
            sample. None: they are computed on each call. Ask by `shared`.
        randomised: copies of a model with randomised parameters, one a step, built once. None: built on each call.
        permuted: the same architecture, trained on permuted labels; for metrics that ask for it.
        columns: what else the method found (`Metric.columns`), each (B, …).
    """

    noise: Noise = field(default_factory=Noise)
    explain: Callable[[Classifier, Batch], Tensor] | None = None
    share: Callable[[SharedWork, Classifier, Batch], Mapping[str, Tensor]] | None = None
    randomised: Callable[[Classifier, Randomisation], Sequence[Classifier]] | None = None
    permuted: Classifier | None = None
    columns: Mapping[str, Tensor] = field(default_factory=dict)

    def shared(self, work: SharedWork, model: Classifier, batch: Batch) -> Mapping[str, Tensor]:
        """What the work finds for a batch, kept from before or computed now."""
        return work(model, batch, self.noise) if self.share is None else self.share(work, model, batch)


class Metric(Config, ABC):
    """A measure of maps, one row per sample.

    A subclass sets `name: Literal[...]`, its parameters, `revision` (raised when its numbers change), a docstring with
    a `Source:` line, and defines `score`.

    Attributes:
        explains: the method runs again (`Context.explain`).
        by_blocks: it goes by the blocks of the network (`Setting.blocks`), which are found by tracing it.
        permutes: the model is trained again on permuted labels (`Context.permuted`).
        orders: only the order of a map's pixels matters, so that a constant map has no score.
        columns: what it reads of what a method stored beside its maps, where the method has it.
        reading: how its figures are read, a clause for the page.
        curve_of, curve_over: what the curves' vertical and horizontal axes show, in words.
        by_sample: each sample's score is its own, so that samples can be compared one by one. Not so of what a batch
            takes together.
        against_chance: a map that knows nothing scores badly, so that the random control is a yardstick. Not so of what
            maps cost, nor of similarities that a map keeps which never looked at the model.
    """

    revision: ClassVar[int] = 1
    explains: ClassVar[bool] = False
    by_blocks: ClassVar[bool] = False
    permutes: ClassVar[bool] = False
    orders: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = ()
    reading: ClassVar[str] = ""
    curve_of: ClassVar[str] = "score"
    curve_over: ClassVar[str] = "pixels changed, most relevant first (%)"
    by_sample: ClassVar[bool] = True
    against_chance: ClassVar[bool] = True
    name: str
    samples: int | None = Field(
        None,
        ge=1,
        description="images looked at, drawn with the job's seed; default: all. Those without a map are left out",
    )

    @property
    def higher_is_better(self) -> bool:
        """Which way its measures point; a class variable where no parameter changes it."""
        raise NotImplementedError

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of its measures, also those that it has of some methods alone.

        A class variable where no parameter changes them.
        """
        raise NotImplementedError

    @abstractmethod
    def cost(self, setting: Setting, method: Cost = Cost()) -> Cost:
        """Forwards and backwards for one sample; an upper bound where the metric stops early.

        Args:
            setting: classes, image size and blocks.
            method: what one map of the method costs, for metrics that run it again.
        """

    def curve_axis(self, setting: Setting) -> tuple[float, ...] | tuple[str, ...]:
        """Where the points of the curves lie: shares of pixels in [0, 1], or names; empty where there is no curve."""
        del setting
        return ()

    def region(self) -> str | None:
        """The region of the images that it needs to know (`Batch.regions`), or None."""
        return None

    def calibration(self) -> Calibration | None:
        """What has to be found out before the metric can run, or None."""
        return None

    def calibrated(self, found: Mapping[str, float]) -> Self:
        """The metric with the numbers that its calibration found."""
        del found
        return self

    def __call__(self, model: Classifier, batch: Batch, maps: Tensor, context: Context = Context()) -> Scores:
        """Scores of the maps of one batch.

        Args:
            model: the classifier that the maps explain; left as it was found.
            batch: B images with the targets that the maps explain.
            maps: (B, 1, H, W) float32, finite, higher is more relevant.
            context: what else there is.

        Raises:
            ValueError: the maps have another size than the images, or values that are not finite.
        """
        expected = (len(batch), 1, *batch.images.shape[-2:])
        if maps.shape != expected:
            raise ValueError(f"{self.name}: expected maps of {expected}, got {tuple(maps.shape)}")
        finite = maps.isfinite().flatten(1).all(1)
        if not finite.all():
            names = [name for name, fine in zip(batch.ids, finite.tolist(), strict=True) if not fine]
            raise ValueError(f"{self.name}: the map of {names[0]} is not finite")
        scores = self.score(model, batch, maps, context)
        if not self.orders:
            return scores
        flat = maps.flatten(1)
        constant = flat.amax(1) == flat.amin(1)
        return Scores(
            {name: torch.where(constant, torch.nan, values) for name, values in scores.measures.items()},
            {name: torch.where(constant[:, None], torch.nan, values) for name, values in scores.curves.items()},
        )

    @abstractmethod
    def score(self, model: Classifier, batch: Batch, maps: Tensor, context: Context) -> Scores:
        """The scores. Arguments as for a call; the maps have been checked."""

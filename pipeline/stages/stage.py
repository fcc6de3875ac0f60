"""The contract of a stage: what is loaded, what is computed, what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, TypeVar

import pyarrow as pa
import torch

from pipeline.models import ALONE, Classifier, Processes
from pipeline.models.randomise import Randomisation
from pipeline.noise import Noise
from pipeline.part import Failed
from pipeline.stages.image_cache import ImageCache
from pipeline.stages.image_statistics import ChannelStatistics
from pipeline.stages.shared_work import SharedResults
from pipeline.stages.variant import Job, Split, Unit, Variant
from pipeline.store import Output

Inputs = TypeVar("Inputs")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a stage may use beside its inputs.

    Attributes:
        job: the job.
        output: where it reads from.
        images: decoded samples of a split of the job's data.
        shared: results that several methods have in common; used in `compute` alone.
        noise: the job's random numbers.
        device: where models live.
        classifier: the model of a variant, loaded on first use; call it in `compute` alone.
        statistics: of the images that a variant's network is trained on anew, or whose mean it masks with.
        randomised: copies of that model with randomised parameters, built once; call it in `compute` alone.
        processes: those that work on the same unit together, each with a device of its own.
        streamed: why no training may hold its images on the device; empty where it may.
    """

    job: Job
    output: Output
    images: Callable[[Split], ImageCache]
    shared: SharedResults
    noise: Noise
    device: torch.device
    statistics: Callable[[Variant], ChannelStatistics]
    classifier: Callable[[Variant], Classifier]
    randomised: Callable[[Classifier, Randomisation], Sequence[Classifier]]
    processes: Processes = ALONE
    streamed: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a unit's computing came to.

    Attributes:
        table: rows, with the columns `position` and `id`.
        failed: samples without a row.
        expected: ids that went in.
        files: further files of the variant's folder, written before the part.
    """

    table: pa.Table
    failed: tuple[Failed, ...]
    expected: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)


class Stage(Protocol[Inputs]):
    """A stage. `load` runs while other units compute; `compute` has the device for itself."""

    revision: ClassVar[int]

    def load(self, around: Surroundings, variant: Variant, unit: Unit) -> Inputs:
        """Read and decode what the unit needs."""
        ...

    def compute(self, around: Surroundings, variant: Variant, inputs: Inputs) -> Outcome:
        """The unit's rows. Called again from the start when the device's memory did not suffice."""
        ...

"""What there is to do: variants (one stage with one configuration) and units (a range of one variant)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from pipeline.contracts import AttributionMethod, Calibration, Cost, Metric, Segmentation, digest
from pipeline.data import DatasetConfig
from pipeline.models import ModelConfig, TrainingConfig
from pipeline.retrain import Cell

StageName = Literal[
    "train", "predict", "segment", "calibrate", "attribute", "evaluate", "statistics", "rank", "mask", "retrain"
]
STAGES: tuple[StageName, ...] = get_args(StageName)
Split = Literal["explained", "retraining"]
"""The job's own samples, and those that networks are trained on anew."""

FOLDERS: Mapping[StageName, str] = {
    "train": "weights",
    "predict": "predictions",
    "segment": "superpixels",
    "calibrate": "calibration",
    "attribute": "maps",
    "evaluate": "scores",
    "statistics": "statistics",
    "rank": "ranks",
    "mask": "masked",
    "retrain": "retrain",
}


@dataclass(frozen=True, slots=True)
class Read:
    """That a variant reads another one: the same positions of it, or, when `whole`, all of it."""

    variant: str
    whole: bool = False


@dataclass(frozen=True)
class Variant:
    """One stage with one configuration: a folder of the output.

    Attributes:
        path: the folder, ending in the start of the fingerprint.
        stage: which stage makes it.
        fingerprint: hash of everything that its rows depend on.
        total: positions to be covered.
        unit_size: positions a unit covers, at most.
        cost: passes through the model for one position.
        reads: the variants that it reads.
        model, method, metric: their ids, where there are any. Superpixels belong to no model; theirs is the first
            one's, beside whose work they are made.
        method_config, metric_config: their configurations.
        segmentation: how superpixels are made, for the stage that makes them.
        calibration: what is to be found, for the stage that finds it.
        axis: the curves' horizontal axis: shares of pixels, or names.
        map_variant, prediction_variant, superpixel_variant, calibration_variant: the variants of the maps,
            predictions, superpixels and calibration that it reads.
        metric_calibration_variant: the variant of what the metric's calibration found.
        split: which samples it is over.
        cell: the training of a remove-and-retrain benchmark, or what a masked data set is masked by.
        rank_variants: by split, the variants of the ranks that it masks by; empty for the clean arm.
        statistics_variants: by split, the variants of the statistics of its images.
        weights_variant: the variant of the weights that the model is loaded from, for a trained model.
        model_digest: of the weights that the plan was made with; None for a model that the job trains.
        permuted: that the model is trained on permuted labels, for the stage that trains.
        training: how it is trained, for that stage; None: as the model's configuration says.
        classes: logits of the model to be trained; None: as many as the data set has classes.
    """

    path: str
    stage: StageName
    fingerprint: str
    total: int
    unit_size: int
    cost: Cost
    reads: tuple[Read, ...]
    model: str
    method: str | None = None
    metric: str | None = None
    method_config: AttributionMethod | None = None
    metric_config: Metric | None = None
    segmentation: Segmentation | None = None
    calibration: Calibration | None = None
    axis: tuple[float, ...] | tuple[str, ...] = ()
    map_variant: str | None = None
    prediction_variant: str | None = None
    superpixel_variant: str | None = None
    calibration_variant: str | None = None
    metric_calibration_variant: str | None = None
    split: Split = "explained"
    cell: Cell | None = None
    rank_variants: Mapping[Split, str] = field(default_factory=dict)
    statistics_variants: Mapping[Split, str] = field(default_factory=dict)
    weights_variant: str | None = None
    model_digest: str | None = None
    permuted: bool = False
    training: TrainingConfig | None = None
    classes: int | None = None

    def description(self) -> dict[str, object]:
        """What a reader of the folder needs to know; kept beside the parts."""
        return {
            "stage": self.stage,
            "fingerprint": self.fingerprint,
            "model": self.model,
            "method": self.method,
            "metric": self.metric,
            "method_config": self.method_config.model_dump(mode="json") if self.method_config else None,
            "metric_config": self.metric_config.model_dump(mode="json") if self.metric_config else None,
            "axis": list(self.axis),
            "reading": self.metric_config.reading if self.metric_config else None,
            "split": self.split,
            "cell": self.cell.model_dump(mode="json") if self.cell else None,
            "reads": [read.variant for read in self.reads],
            **({"labels": "permuted"} if self.permuted else {}),
        }


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """Positions start ≤ p < stop of one variant: what a worker is handed."""

    variant: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know, sent to it once.

    Attributes:
        output: the output's URI.
        dataset: what is explained.
        index: name of the data set's index under the output.
        seed: the job's seed.
        models: by id.
        variants: by path.
        classes: how many the data set has.
        training, training_index: the training split and its index, where a model is trained.
        retraining, retraining_index: the images that networks are trained on anew and their index, where any are.
        validation, validation_index: the images that methods are calibrated on and their index, where one is.
        code: digest of the program's own files; a worker with another one refuses to work.
        options: how to work, without a bearing on the results.
        run: name of the run that it is sent by, for logs and metrics.
    """

    output: str
    dataset: DatasetConfig
    index: str
    seed: int
    models: Mapping[str, ModelConfig]
    variants: Mapping[str, Variant]
    classes: int
    training: DatasetConfig | None = None
    training_index: str | None = None
    retraining: DatasetConfig | None = None
    retraining_index: str | None = None
    validation: DatasetConfig | None = None
    validation_index: str | None = None
    code: str = ""
    options: WorkOptions = field(default_factory=lambda: WorkOptions())
    run: str = ""


@dataclass(frozen=True, slots=True)
class WorkOptions:
    """How a worker works. Nothing here changes a result beyond rounding.

    Attributes:
        rows: images a forward; None: found by measuring.
        decode_threads: threads that decode images.
        cache_bytes: decoded images kept in memory.
        device_share: the part of its device's memory that a worker may count on, in (0, 1].
    """

    rows: int | None = None
    decode_threads: int = 2
    cache_bytes: int = 256 * 2**20
    device_share: float = 1.0


def folder_name(identifier: str) -> str:
    """An id as part of a folder's name: everything but letters, digits and `. _ + -` becomes `-`."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", identifier).strip("-.") or digest(identifier)

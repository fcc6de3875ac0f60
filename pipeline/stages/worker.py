"""A worker: a replica of a model, a cache of decoded images, and the stages that it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.commit import Receipt
from pipeline.data import Dataset
from pipeline.errors import FatalError, ShardError
from pipeline.models import Classifier, check_classifier, load_classifier
from pipeline.models.randomise import Randomisation, RandomisedModels
from pipeline.noise import Noise
from pipeline.stages.attribute import Attribute
from pipeline.stages.calibrate import Calibrate
from pipeline.stages.evaluate import Evaluate
from pipeline.stages.image_cache import ImageCache
from pipeline.stages.mask import Mask
from pipeline.stages.masked_images import channel_statistics
from pipeline.stages.predict import Predict
from pipeline.stages.rank import Rank
from pipeline.stages.retrain import CHECKPOINT, Retrain
from pipeline.stages.segment import Segment
from pipeline.stages.shared_work import SharedResults
from pipeline.stages.stage import Outcome, Stage, Surroundings
from pipeline.stages.train import Train, trained_weights
from pipeline.stages.tuning import is_out_of_memory, tune
from pipeline.stages.variant import Job, Split, StageName, Unit, Variant
from pipeline.store import open_output

STAGE: Mapping[StageName, Stage[Any]] = {
    "train": Train(),
    "predict": Predict(),
    "segment": Segment(),
    "calibrate": Calibrate(),
    "attribute": Attribute(),
    "evaluate": Evaluate(),
    "rank": Rank(),
    "mask": Mask(),
    "retrain": Retrain(),
}
# Stages whose forwards hold fewer images where memory did not suffice; for the others another attempt is the same one.
_IN_ROWS: tuple[StageName, ...] = ("predict", "calibrate", "attribute", "evaluate")


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a unit.

    Attributes:
        unit: the unit.
        receipt: what its marker says.
        load_seconds, compute_seconds, write_seconds: where the time went; loading and writing overlap with other
            units' computing.
    """

    unit: Unit
    receipt: Receipt
    load_seconds: float
    compute_seconds: float
    write_seconds: float


class Worker:
    """Runs units of one job on one device.

    `run` may be called from several threads at a time: one unit computes while others decode or write, so that
    the device does not wait for an image or a disk.
    """

    def __init__(self, job: Job, device: str = "cpu") -> None:
        output = open_output(job.output)
        dataset = Dataset(job.dataset, output.open_table(job.index), job.seed)
        self._size = (dataset.height, dataset.width)
        self._caches: dict[Split, ImageCache] = {"explained": self._cache(job, dataset)}
        self._opening = threading.Lock()
        self._counting = threading.Lock()
        self._statistics: tuple[list[float], list[float]] | None = None
        self._around = Surroundings(
            job=job,
            output=output,
            images=self._images,
            statistics=self._retraining_statistics,
            shared=SharedResults(job.options.cache_bytes),
            noise=Noise(job.seed),
            device=torch.device(device),
            classifier=self._classifier,
            randomised=self._randomised,
        )
        self._replica: tuple[str, Classifier] | None = None
        self._randomisations: dict[Randomisation, Sequence[Classifier]] = {}
        self._rows: dict[str, int] = {}
        self._computing = threading.Lock()
        use_full_precision()

    def run(self, unit: Unit) -> Report:
        """Load, compute and commit one unit.

        Raises:
            FatalError: the job cannot go on.
            ShardError: this unit cannot be done.
            RetryableError: the same unit may succeed later.
        """
        variant = self._around.job.variants[unit.variant]
        stage = STAGE[variant.stage]
        began = time.perf_counter()
        alone = variant.stage in ("train", "calibrate", "retrain")
        if alone and (receipt := next(self._around.output.receipts(unit.variant), None)) is not None:
            # Another run of this output was quicker: its result is what everything after reads.
            self._drop_checkpoint(variant)
            return Report(unit, receipt, 0.0, 0.0, 0.0)
        inputs = stage.load(self._around, variant, unit)
        loaded = time.perf_counter()
        with self._computing:
            entered = time.perf_counter()
            outcome = self._compute(stage, variant, inputs)
            computed = time.perf_counter()
        for name, content in outcome.files.items():
            self._around.output.write_bytes(f"{variant.path}/{name}", content)
        receipt = self._around.output.commit(
            variant.path,
            unit.start,
            unit.stop,
            outcome.table,
            outcome.failed,
            outcome.expected,
            seconds=computed - entered,
        )
        self._drop_checkpoint(variant)
        return Report(unit, receipt, loaded - began, computed - entered, time.perf_counter() - computed)

    def _drop_checkpoint(self, variant: Variant) -> None:
        """After the commit, and not before: a worker that dies between the two would lose the whole training."""
        if variant.stage == "retrain":
            self._around.output.remove(f"{variant.path}/{CHECKPOINT}")

    def _images(self, split: Split) -> ImageCache:
        """The decoded samples of a split; what networks are trained on anew is opened when it is asked for."""
        with self._opening:
            if split not in self._caches:
                job = self._around.job
                if job.retraining is None or job.retraining_index is None:
                    raise ShardError("the job has no images to train on anew")
                dataset = Dataset(job.retraining, self._around.output.open_table(job.retraining_index), job.seed)
                self._caches[split] = self._cache(job, dataset)
            return self._caches[split]

    def _retraining_statistics(self) -> tuple[list[float], list[float]]:
        """Found once, also where all of a worker's units in flight are trainings and ask at the same time."""
        with self._counting:
            if self._statistics is None:
                cache = self._images("retraining")
                self._statistics = channel_statistics(cache, len(cache))
            return self._statistics

    @staticmethod
    def _cache(job: Job, dataset: Dataset) -> ImageCache:
        return ImageCache(dataset, job.options.cache_bytes, job.options.decode_threads)

    def _compute(self, stage: Stage[Any], variant: Variant, inputs: Any) -> Outcome:
        """The stage's outcome, with fewer images a forward each time that memory did not suffice.

        The number that sufficed is remembered for the variant's other units.
        """
        while True:
            try:
                return stage.compute(self._around, variant, inputs)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if variant.stage not in _IN_ROWS:
                    mend = "; lower batch_size" if variant.stage in ("train", "retrain") else ""
                    raise ShardError(f"{variant.path}: does not fit in memory{mend}: {error}") from error
                rows = self._replica[1].rows if self._replica else 1
                if self._replica is None or rows == 1:
                    raise ShardError(f"{variant.path}: one image at a time does not fit in memory: {error}") from error
                self._rows[variant.path] = rows // 2
            # Outside the handler the error no longer holds the tensors that filled the memory.
            if self._around.device.type == "cuda":
                torch.cuda.empty_cache()

    def _classifier(self, variant: Variant) -> Classifier:
        """The replica of a variant's model; the one before it is dropped. The computing lock is held."""
        key = variant.weights_variant or variant.model
        if self._replica is None or self._replica[0] != key:
            self._replica = None  # the memory of the last one is needed for the next
            self._randomisations = {}
            self._replica = (key, self._load(variant))
        model = self._replica[1]
        model.rows = self._rows.get(variant.path, self._rows[key])
        return model

    def _randomised(self, model: Classifier, randomisation: Randomisation) -> Sequence[Classifier]:
        """Randomised copies of the replica, built once. The computing lock is held."""
        if randomisation not in self._randomisations:
            self._randomisations[randomisation] = RandomisedModels(
                model, randomisation, self._around.noise, *self._size
            )
        return self._randomisations[randomisation]

    def _load(self, variant: Variant) -> Classifier:
        job, output = self._around.job, self._around.output
        config = job.models[variant.model]
        weights = trained_weights(output, variant.weights_variant) if variant.weights_variant else None
        model = load_classifier(config, classes=job.classes, weights=weights, device=self._around.device, seed=job.seed)
        check_classifier(model, *self._size, model.classes)
        if variant.model_digest is not None and model.digest != variant.model_digest:
            raise FatalError(
                f"{variant.model}: a worker loaded weights {model.digest}, "
                f"the plan was made with {variant.model_digest}"
            )
        if job.options.rows is not None:
            model.rows = job.options.rows
        else:
            tune(model, config.name, *self._size, output)
        self._rows[variant.weights_variant or variant.model] = model.rows
        return model


def use_full_precision() -> None:
    """Let CUDA compute float32 as such.

    TF32, PyTorch's default in convolutions, is good to about a thousandth: a sign of a gradient or a rank of a pixel
    would depend on the batch.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False

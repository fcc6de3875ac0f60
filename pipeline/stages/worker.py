"""A worker: a replica of a model, a cache of decoded images, and the stages that it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from pipeline.errors import FatalError, RetryableError, ShardError, one_line
from pipeline.models import ALONE, Classifier, Processes, check_classifier, load_classifier
from pipeline.models.device_memory import is_out_of_memory
from pipeline.models.randomise import Randomisation, RandomisedModels
from pipeline.noise import Noise
from pipeline.part import Failed, Receipt
from pipeline.stages.attribute import Attribute
from pipeline.stages.calibrate import Calibrate
from pipeline.stages.evaluate import Evaluate
from pipeline.stages.image_statistics import ChannelStatistics, channel_statistics
from pipeline.stages.mask import Mask
from pipeline.stages.predict import Predict
from pipeline.stages.rank import Rank
from pipeline.stages.retrain import CHECKPOINT, Retrain
from pipeline.stages.segment import Segment
from pipeline.stages.shared_work import SharedResults
from pipeline.stages.split_images import SplitImages
from pipeline.stages.stage import Outcome, Stage, Surroundings
from pipeline.stages.statistics import Statistics
from pipeline.stages.train import Train, trained_weights
from pipeline.stages.tuning import tune
from pipeline.stages.variant import Job, Split, StageName, Unit, Variant
from pipeline.store import open_output

STAGE: Mapping[StageName, Stage[Any]] = {
    "train": Train(),
    "predict": Predict(),
    "segment": Segment(),
    "calibrate": Calibrate(),
    "attribute": Attribute(),
    "evaluate": Evaluate(),
    "statistics": Statistics(),
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
    the device does not wait for an image or a disk. Several processes may work on one unit together: each has a worker,
    and all of them run the same units in the same order; the first of them reads and writes for all.
    """

    def __init__(
        self, job: Job, device: str | torch.device = "cpu", processes: Processes = ALONE, streamed: str = ""
    ) -> None:
        """Open the output and the data set.

        Args:
            job: the job.
            device: where to compute.
            processes: those that work on each unit together.
            streamed: why no training may hold its images on the device; empty where it may.

        Raises:
            FatalError: the output cannot be opened.
        """
        output = open_output(job.output)
        self._images = SplitImages(output, job)
        dataset = self._images.dataset("explained")
        self._size = (dataset.height, dataset.width)
        self._counting = threading.Lock()
        self._statistics: dict[str, ChannelStatistics] = {}
        self._around = Surroundings(
            job=job,
            output=output,
            images=self._images.kept,
            statistics=self._channel_statistics,
            shared=SharedResults(job.options.cache_bytes),
            noise=Noise(job.seed),
            device=torch.device(device),
            classifier=self._classifier,
            randomised=self._randomised,
            processes=processes,
            streamed=streamed,
        )
        self._replica: tuple[str, Classifier] | None = None
        self._randomisations: dict[Randomisation, Sequence[Classifier]] = {}
        self._rows: dict[str, int] = {}
        self._computing = threading.Lock()
        use_full_precision()

    def avoid(self, unreadable: Mapping[Split, Set[int]]) -> None:
        """Never decode the images at these positions again, by split: it ends the process."""
        self._images.avoid(unreadable)

    def look(self, unit: Unit) -> None:
        """Decode a unit's images and no other, and do no more."""
        self._images.apart(self._around.job.variants[unit.variant].split).get(unit.start, unit.stop)

    def give_up(self, unit: Unit, reason: str) -> Report:
        """Commit a unit's samples as failed, without touching them.

        Raises:
            ShardError: no row of the variant is committed, which would tell their columns.
            FatalError, RetryableError: as `run`.
        """
        output = self._around.output
        table = output.without_rows(unit.variant)
        if table is None:
            raise ShardError(f"{reason}; no other sample of it is done")
        names = self._images.dataset(self._around.job.variants[unit.variant].split).ids(unit.start, unit.stop)
        failed = [Failed(position, name, reason) for position, name in enumerate(names, unit.start)]
        receipt = output.commit(unit.variant, unit.start, unit.stop, table, failed, names)
        return Report(unit, receipt, 0.0, 0.0, 0.0)

    def run(self, unit: Unit, *, alone: bool = False) -> Report:
        """Load, compute and commit one unit.

        Args:
            unit: the unit.
            alone: decode no image but the unit's own; else the ones beside them come along for the units after it.

        Raises:
            FatalError: the job cannot go on.
            ShardError: this unit cannot be done.
            RetryableError: the same unit may succeed later.
        """
        try:
            return self._run(unit, alone)
        except (RuntimeError, MemoryError, ImportError, OSError) as error:
            if not is_out_of_memory(error):
                raise
            # In loading or writing: what takes it may be another unit's computing, which takes fewer images then.
            raise RetryableError(f"{unit.variant}: there is no memory left: {one_line(error)}") from error

    def _run(self, unit: Unit, alone: bool) -> Report:
        variant = self._around.job.variants[unit.variant]
        stage = STAGE[variant.stage]
        began = time.perf_counter()
        processes = self._around.processes
        if variant.stage in ("train", "calibrate", "retrain"):
            receipt = processes.by_lead(partial(self._committed, variant, unit))
            if receipt is not None:
                return Report(unit, receipt, 0.0, 0.0, 0.0)
        around = replace(self._around, images=self._images.apart) if alone else self._around
        inputs = stage.load(around, variant, unit)
        loaded = time.perf_counter()
        with self._computing:
            entered = time.perf_counter()
            outcome = self._compute(stage, variant, inputs)
            computed = time.perf_counter()
        receipt = processes.by_lead(partial(self._commit, variant, unit, outcome, computed - entered))
        return Report(unit, receipt, loaded - began, computed - entered, time.perf_counter() - computed)

    def _committed(self, variant: Variant, unit: Unit) -> Receipt | None:
        """What another run of this output has made of a unit: its result is what everything after reads."""
        for receipt in self._around.output.receipts(variant.path):
            if receipt.start <= unit.start and unit.stop <= receipt.stop:
                self._drop_checkpoint(variant)
                return receipt
        return None

    def _commit(self, variant: Variant, unit: Unit, outcome: Outcome, seconds: float) -> Receipt:
        output = self._around.output
        for name, content in outcome.files.items():
            output.write_bytes(f"{variant.path}/{name}", content)
        receipt = output.commit(
            variant.path, unit.start, unit.stop, outcome.table, outcome.failed, outcome.expected, seconds=seconds
        )
        self._drop_checkpoint(variant)
        return receipt

    def _drop_checkpoint(self, variant: Variant) -> None:
        """After the commit, and not before: a worker that dies between the two would lose the whole training."""
        if variant.stage == "retrain":
            self._around.output.remove(f"{variant.path}/{CHECKPOINT}")

    def _channel_statistics(self, variant: Variant) -> ChannelStatistics:
        """Added up once, also where all of a worker's units in flight ask at the same time."""
        path = variant.statistics_variants["retraining"]
        with self._counting:
            if path not in self._statistics:
                total = len(self._images.kept("retraining"))
                self._statistics[path] = channel_statistics(self._around.output, path, total)
            return self._statistics[path]

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

"""What a run tells Prometheus: counts and times of its units, on the port where a node's Ray exports metrics.

Ray puts `ray_` before every name, and `_total` behind that of a counter. The driver counts, since it alone sees every
attempt and outlives the workers, whose last counts would die with them; workers tell the memory that they hold.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from ray.util.metrics import Counter, Gauge, Histogram

from cluster.executor import Event, Watch
from cluster.queue import UnitQueue
from pipeline.stages.variant import Job

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that heatline exports.

    Attributes:
        name: as Ray is told it.
        kind: what it is.
        description: the help text.
        tags: its labels. All are bounded: one run, its stages and its models, and not its variants.
        bounds: upper bounds of a histogram's buckets.
    """

    name: str
    kind: Kind
    description: str
    tags: tuple[str, ...]
    bounds: tuple[float, ...] = ()

    @property
    def exported(self) -> tuple[str, ...]:
        """The names of its series in Prometheus."""
        ends = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
        return tuple(f"ray_{self.name}{end}" for end in ends[self.kind])


_WORK = ("run", "stage", "model")
UNITS = Metric("heatline_units", "counter", "Units committed.", _WORK)
SAMPLES = Metric("heatline_samples", "counter", "Samples of the units committed.", _WORK)
FAILURES = Metric("heatline_failures", "counter", "Samples that failed, in units that were committed.", _WORK)
SECONDS = Metric("heatline_seconds", "counter", "Seconds spent on units: load, compute, write.", (*_WORK, "phase"))
ATTEMPTS = Metric("heatline_attempts", "counter", "Attempts at units, those that failed as well.", _WORK)
FAILED_ATTEMPTS = Metric("heatline_failed_attempts", "counter", "Attempts that failed or were in vain.", _WORK)
LOST = Metric("heatline_units_lost", "counter", "Units given up.", _WORK)
UNIT_SECONDS = Metric(
    "heatline_unit_seconds",
    "histogram",
    "Seconds that a unit's computing took.",
    ("run", "stage"),
    (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 30000.0),
)
LEFT = Metric("heatline_units_left", "gauge", "Units neither committed nor given up.", ("run",))
IN_FLIGHT = Metric("heatline_units_in_flight", "gauge", "Units that a worker has.", ("run",))
WORKERS = Metric("heatline_workers", "gauge", "Workers that there are.", ("run",))
ASKED = Metric("heatline_workers_asked", "gauge", "Workers that were asked for and are not there yet.", ("run",))
BUSY = Metric("heatline_workers_busy", "gauge", "Workers that have a unit.", ("run",))
DEVICE_MEMORY = Metric(
    "heatline_device_memory_bytes", "gauge", "Bytes of its GPU's memory that a worker's PyTorch holds.", ("run",)
)
METRICS = (
    UNITS,
    SAMPLES,
    FAILURES,
    SECONDS,
    ATTEMPTS,
    FAILED_ATTEMPTS,
    LOST,
    UNIT_SECONDS,
    LEFT,
    IN_FLIGHT,
    WORKERS,
    ASKED,
    BUSY,
    DEVICE_MEMORY,
)


class RunMetrics:
    """Counts a run's events. Ray is there as long as this is used.

    Args:
        job: the run's job.
        queue: its units.
    """

    def __init__(self, job: Job, queue: UnitQueue) -> None:
        self._job = job
        self._queue = queue
        self._instruments = {metric: _instrument(metric) for metric in METRICS if metric is not DEVICE_MEMORY}
        self._in_flight: Counts[Hashable] = Counts()
        self._gauges()

    def watching(self, watch: Watch) -> Watch:
        """A watch that counts an event and hands it on."""

        def both(event: Event) -> None:
            self._take(event)
            watch(event)

        return both

    def _take(self, event: Event) -> None:
        if event.kind == "workers":
            for metric, number in zip((WORKERS, ASKED), event.workers, strict=True):
                self._instruments[metric].set(number, {"run": self._job.run})
        if event.unit is None:
            return
        variant = self._job.variants[event.unit.variant]
        tags = {"run": self._job.run, "stage": variant.stage, "model": variant.model}
        if event.kind == "started":
            self._count(ATTEMPTS, 1, tags)
            self._in_flight[event.worker] += 1
        elif event.worker is not None:
            self._in_flight[event.worker] -= 1
            self._count(FAILED_ATTEMPTS, event.kind in ("again", "split", "lost", "dropped"), tags)
        self._count(LOST, event.kind == "lost", tags)
        if event.report is not None:
            report = event.report
            self._count(UNITS, 1, tags)
            self._count(SAMPLES, len(event.unit), tags)
            self._count(FAILURES, report.receipt.failures, tags)
            self._count(SECONDS, report.load_seconds, {**tags, "phase": "load"})
            self._count(SECONDS, report.compute_seconds, {**tags, "phase": "compute"})
            self._count(SECONDS, report.write_seconds, {**tags, "phase": "write"})
            self._instruments[UNIT_SECONDS].observe(
                report.compute_seconds, {"run": self._job.run, "stage": variant.stage}
            )
        self._gauges()

    def _count(self, metric: Metric, number: float, tags: dict[str, str]) -> None:
        if number > 0:  # Ray's counters refuse zero
            self._instruments[metric].inc(number, tags)

    def _gauges(self) -> None:
        tags = {"run": self._job.run}
        self._instruments[LEFT].set(len(self._queue), tags)
        self._instruments[IN_FLIGHT].set(self._in_flight.total(), tags)
        self._instruments[BUSY].set(sum(count > 0 for count in self._in_flight.values()), tags)


class WorkerMetrics:
    """What a worker tells of itself; Ray adds which worker and which node it is.

    Args:
        run: the run that it works for.
    """

    def __init__(self, run: str) -> None:
        self._gauge = _instrument(DEVICE_MEMORY)
        self._tags = {"run": run}

    def note_memory(self) -> None:
        """Tell the memory held now, where PyTorch uses a GPU."""
        if torch.cuda.is_available() and (held := torch.cuda.memory_reserved()):
            self._gauge.set(held, self._tags)


def _instrument(metric: Metric) -> Any:
    if metric.kind == "histogram":
        return Histogram(metric.name, metric.description, list(metric.bounds), metric.tags)
    return {"counter": Counter, "gauge": Gauge}[metric.kind](metric.name, metric.description, metric.tags)

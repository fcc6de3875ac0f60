"""One run of a job: check, plan, execute, summarise, report."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pyarrow as pa

from cluster import make_executor
from cluster.executor import Event
from cluster.profile import Profile
from jobs.check import CheckedJob, check
from jobs.plan import Plan, cached_index, index_name, make_plan
from jobs.progress import Progress
from jobs.record import RunRecord, new_record
from jobs.spec import JobSpec
from pipeline.data import DatasetConfig, build_index
from pipeline.errors import FatalError
from pipeline.noise import Noise
from pipeline.retrain.grid import read_grid
from pipeline.retrain.summary import benchmarks, retrain_summary
from pipeline.stages.summarise import Summary, summarise
from pipeline.stages.variant import Split
from pipeline.store import Output, open_output

RECENT = 20  # records looked at for an equal run and for timings


class StopRequestedError(Exception):
    """The run was asked to stop by a signal other than Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended.

    Attributes:
        status: `done`; `failed`: finished with more failures than the spec allows, or units lost; `stopped`.
        run: name of the run's record.
        page: the report's page under the output, where one was made.
        done: units committed by this run.
        left: units that are not committed.
        failures: samples that failed.
        lost: units given up, with reasons, one line each.
        stranded: units that waited for those.
        reason: why the run stopped, where it did.
    """

    status: Literal["done", "failed", "stopped"]
    run: str
    page: str | None
    done: int
    left: int
    failures: int
    lost: tuple[str, ...] = ()
    stranded: int = 0
    reason: str = ""
    interrupted: bool = False


def prepare(
    spec: JobSpec, profile: Profile, *, create: bool = False, fresh: bool = False
) -> tuple[Output, CheckedJob, Plan]:
    """Check a spec against its data and weights, and plan it.

    Args:
        spec: the spec.
        profile: where it shall run.
        create: make the output where there is none; without it nothing is written to a place without one.
        fresh: take back what earlier runs committed of it.

    Raises:
        SpecError: with every problem found.
        FatalError: the output cannot be used.
    """
    indexes = _Indexes(spec.output)
    checked = check(spec, indexes.load)
    output = open_output(spec.output, create=create, missing_ok=True)
    if create:
        indexes.keep(output)
    plan = make_plan(spec, checked, profile, output, indexes.load)
    if fresh:
        for path in plan.job.variants:
            output.forget(path)
        plan = make_plan(spec, checked, profile, output, indexes.load)
    return output, checked, plan


class _Indexes:
    """Indexes of data sets: from the output that holds them, else made and remembered until there is an output."""

    def __init__(self, uri: str) -> None:
        self._made: dict[str, pa.Table] = {}
        try:
            self._output: Output | None = open_output(uri)
        except FatalError:
            # Missing, or not an output of ours: the check of the spec says so with its line.
            self._output = None

    def load(self, config: DatasetConfig) -> pa.Table:
        """The index of a source, listed once."""
        name = index_name(config)
        if self._output is not None:
            return cached_index(self._output, config)
        if name not in self._made:
            self._made[name] = build_index(config)
        return self._made[name]

    def keep(self, output: Output) -> None:
        """Put what was made into an output that is there now."""
        for name in self._made:
            output.cached_table(name, partial(self._made.__getitem__, name))
        self._output = output


def run(spec: JobSpec, profile: Profile, progress: Progress, *, fresh: bool = False) -> Result:
    """Run a job to its end, or resume it.

    Args:
        spec: the spec.
        profile: where it runs.
        progress: shows how far it is.
        fresh: compute everything again.

    Returns:
        How it ended; a stop by a signal or a fatal error in the middle is a result too.

    Raises:
        SpecError, FatalError: before anything ran.
    """
    output, checked, plan = prepare(spec, profile, create=True, fresh=fresh)
    earlier = [output.run(name) for name in output.runs()[-RECENT:]]
    record = new_record(spec, plan, checked.dataset, profile, earlier)
    units = len(plan.queue)
    for same in (one for one in reversed(earlier) if not units and one["status"] == "done" and _same(one, record)):
        if page := _page(output, same):
            return Result("done", str(same["run"]), page, 0, 0, same["failures"])
    for path, variant in plan.job.variants.items():
        output.describe(path, variant.description())
    record.write(output, plan, "running")
    reason, interrupted = "", False
    try:
        with _stoppable():
            with progress.showing(plan):
                if units:
                    make_executor(profile).run(plan.job, plan.queue, _watching(record, progress))
            for notice in _unexplained(output, plan, spec):
                progress.say(notice)
            progress.say("summarising")
            return _finish(spec, output, plan, record, checked)
    except KeyboardInterrupt:
        reason, interrupted = "stopped by Ctrl-C", True
    except StopRequestedError:
        reason = "stopped by a signal"
    except FatalError as error:
        reason = str(error)
        if not record.started_units:
            record.write(output, plan, "stopped")
            raise
    failures = sum(map(len, _failed_samples(output, plan).values()))
    # Units in flight may have been committed after the last report: what is left is looked up.
    left = len(make_plan(spec, checked, profile, output, partial(cached_index, output)).queue)
    record.done = units - left
    # Where the disk is full the record cannot be written either; why the run stopped is told all the same.
    with suppress(FatalError):
        record.write(output, plan, "stopped", failures=failures)
    return Result("stopped", record.name, None, record.done, left, failures, reason=reason, interrupted=interrupted)


def _unexplained(output: Output, plan: Plan, spec: JobSpec) -> list[str]:
    """A line for each model of which nothing is explained, since the data set's `select` keeps none of its samples."""
    if spec.dataset.select == "all":
        return []
    found = []
    for model in plan.job.models:
        maps = [v for v in plan.job.variants.values() if v.stage == "attribute" and v.model == model]
        rows = sum(receipt.rows for v in maps[:1] for receipt in output.receipts(v.path))
        if maps and not rows:
            found.append(f"{model}: select: {spec.dataset.select} keeps none of its samples, nothing is explained")
    return found


def _finish(spec: JobSpec, output: Output, plan: Plan, record: RunRecord, checked: CheckedJob) -> Result:
    """Summarise and draw what is committed."""
    # Drawing needs matplotlib, which a job that finds everything committed shall not wait for.
    from pipeline.report import build_report  # noqa: PLC0415

    failed, sizes = _failed_samples(output, plan), _sizes(plan)
    failures = sum(map(len, failed.values()))
    summary = _summaries(output, plan, Noise(spec.seed))
    too_many = any(len(positions) > spec.max_failed_share * sizes[split] for split, positions in failed.items())
    status: Literal["done", "failed"] = "failed" if plan.queue.lost or too_many else "done"
    record.write(output, plan, status, failures=failures, summary=summary)
    page = build_report(output, record.name, dataset=checked.dataset, samples=spec.report.samples)
    lost = tuple(f"{unit.variant} [{unit.start}, {unit.stop}): {why}" for unit, why in sorted(plan.queue.lost.items()))
    return Result(status, record.name, page, record.done, 0, failures, lost, len(plan.queue.stranded))


def _watching(record: RunRecord, progress: Progress) -> Callable[[Event], None]:
    def watch(event: Event) -> None:
        if event.kind == "started":
            record.started_units += 1
        if event.report is not None:
            record.note(event.report)
        progress.show(event)

    return watch


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM raises `StopRequestedError` in the main thread, as Ctrl-C raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise StopRequestedError

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _failed_samples(output: Output, plan: Plan) -> dict[Split, set[int]]:
    """Positions that failed in any stage, by split; a sample counts once."""
    failed: dict[Split, set[int]] = {split: set() for split in _sizes(plan)}
    for path, variant in plan.job.variants.items():
        if variant.stage not in ("train", "calibrate", "retrain"):
            rows = output.failures([path])["position"].to_pylist()
            failed[variant.split].update(position for position in rows if position < variant.total)
    return failed


def _sizes(plan: Plan) -> dict[Split, int]:
    """Positions of each split that is looked at."""
    sizes: dict[Split, int] = {}
    for variant in plan.job.variants.values():
        if variant.stage not in ("train", "calibrate", "retrain"):
            sizes[variant.split] = max(variant.total, sizes.get(variant.split, 0))
    return sizes


def _summaries(output: Output, plan: Plan, noise: Noise) -> list[Summary]:
    found: list[Summary] = []
    for variant in plan.job.variants.values():
        if variant.stage == "evaluate":
            found += summarise(output, variant, noise)
    return found + retrain_summary(benchmarks(read_grid(output, plan.job.variants.values()).cells, ()))


def _same(earlier: dict[str, Any], record: RunRecord) -> bool:
    """Whether an earlier run had the very same spec and variants, so that its summary and page still hold."""
    keys = ("spec", "variants", "samples")
    return all(earlier.get(key) == record.facts[key] for key in keys)


def _page(output: Output, record: dict[str, Any]) -> str | None:
    name = f"report/{record['run']}/index.html"
    return name if output.exists(name) else None

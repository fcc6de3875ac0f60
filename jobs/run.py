"""One run of a job: check, plan, execute, summarise, report."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from cluster import make_executor
from cluster.executor import Event
from cluster.profile import Profile
from jobs.check import CheckedJob, check
from jobs.plan import Plan, cached_index, make_plan
from jobs.progress import Progress
from jobs.record import RunRecord, new_record
from jobs.spec import JobSpec
from pipeline.errors import FatalError
from pipeline.noise import Noise
from pipeline.stages.summarise import Summary, summarise
from pipeline.store import Output, open_output


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


def prepare(spec: JobSpec, profile: Profile, *, fresh: bool = False) -> tuple[Output, CheckedJob, Plan]:
    """Check a spec against its data and weights, and plan it.

    Args:
        spec: the spec.
        profile: where it shall run.
        fresh: take back what earlier runs committed of it.

    Raises:
        SpecError: with every problem found.
        FatalError: the output cannot be used.
    """
    output = open_output(spec.output, create=True)
    checked = check(spec, lambda config: cached_index(output, config))
    plan = make_plan(spec, checked, profile, output)
    if fresh:
        for path in plan.job.variants:
            output.forget(path)
        plan = make_plan(spec, checked, profile, output)
    return output, checked, plan


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
    output, checked, plan = prepare(spec, profile, fresh=fresh)
    earlier = output.run() if output.runs() else None
    record = new_record(spec, plan, checked.dataset, profile, earlier)
    units = len(plan.queue)
    if not units and earlier is not None and _same(earlier, record) and earlier["status"] == "done":
        return Result("done", str(earlier["run"]), _page(output, earlier), 0, 0, earlier["failures"])
    for path, variant in plan.job.variants.items():
        output.describe(path, variant.description())
    record.write(output, plan, "running")
    reason, interrupted = "", False
    try:
        with _stoppable(), progress.showing(plan):
            if units:
                make_executor(profile).run(plan.job, plan.queue, _watching(record, progress))
    except KeyboardInterrupt:
        reason, interrupted = "stopped by Ctrl-C", True
    except StopRequestedError:
        reason = "stopped by a signal"
    except FatalError as error:
        reason = str(error)
    failures = _failed_samples(output, plan)
    if reason:
        record.write(output, plan, "stopped", failures=failures)
        return Result(
            "stopped",
            record.name,
            None,
            record.done,
            len(plan.queue),
            failures,
            reason=reason,
            interrupted=interrupted,
        )
    progress.say("summarising")
    summary = _summaries(output, plan, Noise(spec.seed))
    # Ids come from a data set, so a share of it may have failed without being wrong of the program.
    bad = failures > spec.max_failed_share * len(checked.dataset)
    status: Literal["done", "failed"] = "failed" if plan.queue.lost or bad else "done"
    record.write(output, plan, status, failures=failures, summary=summary)
    # Drawing needs matplotlib, which a job that finds everything committed shall not wait for.
    from pipeline.report import build_report  # noqa: PLC0415

    page = build_report(output, record.name, dataset=checked.dataset, samples=spec.report.samples)
    lost = tuple(f"{unit.variant} [{unit.start}, {unit.stop}): {why}" for unit, why in sorted(plan.queue.lost.items()))
    return Result(status, record.name, page, record.done, 0, failures, lost, len(plan.queue.stranded))


def _watching(record: RunRecord, progress: Progress) -> Callable[[Event], None]:
    def watch(event: Event) -> None:
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


def _failed_samples(output: Output, plan: Plan) -> int:
    """Samples of the selection that failed in any stage; a sample counts once."""
    failed: set[int] = set()
    for path, variant in plan.job.variants.items():
        if variant.stage != "train":
            rows = output.failures([path])["position"].to_pylist()
            failed.update(position for position in rows if position < variant.total)
    return len(failed)


def _summaries(output: Output, plan: Plan, noise: Noise) -> list[Summary]:
    found: list[Summary] = []
    for variant in plan.job.variants.values():
        if variant.stage == "evaluate":
            found += summarise(output, variant, noise)
    return found


def _same(earlier: dict[str, Any], record: RunRecord) -> bool:
    """Whether an earlier run had the very same spec and variants, so that its summary and page still hold."""
    keys = ("spec", "variants", "samples")
    return all(earlier.get(key) == record.facts[key] for key in keys)


def _page(output: Output, record: dict[str, Any]) -> str | None:
    name = f"report/{record['run']}/index.html"
    return name if output.exists(name) else None

"""One run of a job: check, plan, execute, summarise, report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from cluster import make_executor
from cluster.profile import Profile
from jobs.check import CheckedJob
from jobs.heartbeat import signs_of_life
from jobs.interruption import Stop, StopRequested, stoppable
from jobs.left_out import left_out_warning
from jobs.log import RunLog
from jobs.outcome import check_whole, common_reasons, failed_samples, notices, split_sizes, summaries
from jobs.plan import Plan, cached_index, make_plan
from jobs.prepare import prepare
from jobs.progress import Progress
from jobs.record import RunRecord, new_record
from jobs.spec import JobSpec
from jobs.telling import Telling
from pipeline.claim import Claims
from pipeline.errors import FatalError, RetryableError, ShardError
from pipeline.noise import Noise
from pipeline.retrain.grid import Grid, read_grid
from pipeline.store import Output

RECENT = 20  # records looked at for an equal run and for timings


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended.

    Attributes:
        status: `done`; `failed`: finished with more failures than the spec allows, or units lost, or with results that
            cannot be read; `stopped`.
        run: name of the run's record.
        page: the report's page under the output, where one was made.
        done: units committed by this run.
        left: units that are not committed.
        failures: samples that failed.
        lost: units given up, with reasons, one line each.
        stranded: units that waited for those.
        reason: why the run stopped, or what cannot be read.
        elsewhere: units that another run of the output committed meanwhile.
        reasons: why samples failed, the commonest first, each with how many; a few.
        afresh: that it stopped before it took away what was to be computed afresh.
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
    elsewhere: int = 0
    reasons: tuple[tuple[str, int], ...] = ()
    afresh: bool = False


def run(
    spec: JobSpec, profile: Profile, progress: Progress, log: RunLog | None = None, *, fresh: bool = False
) -> Result:
    """Run a job to its end, or resume it.

    Args:
        spec: the spec.
        profile: where it runs.
        progress: shows how far it is.
        log: is told of each event; default: nobody is.
        fresh: compute everything again.

    Returns:
        How it ended; a stop by a signal or a fatal error in the middle is a result too.

    Raises:
        SpecError, FatalError: before anything ran.
        RetryableError: likewise; a signal is one.
    """
    with stoppable() as stop:
        try:
            with ExitStack() as ending:

                def begin(output: Output) -> Claims:
                    return ending.enter_context(Claims(output, say=progress.say))

                prepared = prepare(spec, profile, create=True, fresh=fresh, begin=begin)
                return _run(spec, profile, *prepared, progress, log or RunLog(), stop)
        except StopRequested as stopped:
            raise RetryableError("stopped by a signal before anything was done; the same command goes on") from stopped


def _run(
    spec: JobSpec,
    profile: Profile,
    output: Output,
    checked: CheckedJob,
    plan: Plan,
    progress: Progress,
    log: RunLog,
    stop: Stop,
) -> Result:
    """Run what was prepared, with a record of it."""
    known = output.runs()
    unreadable: list[str] = []
    earlier = list(output.records(known[-RECENT:], unreadable.append))
    record = new_record(spec, plan, checked.dataset, profile, earlier, known)
    telling = Telling(progress, log, record, stop)
    plan = replace(plan, job=replace(plan.job, run=record.name))
    telling.log.begin(plan.job)
    if unreadable:
        telling.say(left_out_warning(unreadable))
    if not len(plan.queue) and (found := _same_run(output, earlier, record)):
        same, page = found
        record.write_repeat(output, plan, same)
        result = Result("done", record.name, page, 0, 0, same["failures"])
    else:
        record.write(output, plan, "running")
        with signs_of_life(output, record.name, record.tally):
            result = _carry_out(spec, profile, output, plan, checked, telling)
    # What has ended is not stopped any more: a signal finds nothing to do.
    stop.over()
    counts = {key: getattr(result, key) for key in ("done", "left", "failures", "stranded")}
    telling.ended(result.status, result.reason, **counts, lost=len(result.lost))
    return result


def _carry_out(
    spec: JobSpec, profile: Profile, output: Output, plan: Plan, checked: CheckedJob, telling: Telling
) -> Result:
    """Compute what is left, summarise and draw; on a stop, note how far it came."""
    record, units = telling.record, len(plan.queue)
    status: Literal["failed", "stopped"] = "stopped"
    reason, interrupted = "", False
    beginning = _Beginning(output, plan)
    try:
        telling.log.say("begun", f"{units} units to do", units=units, output=output.uri)
        with telling.progress.showing(record.tally):
            if units:
                make_executor(profile).run(plan.job, plan.queue, telling.watch, beginning)
                check_whole(output, plan)
        grid = read_grid(output, plan.job.variants.values())
        for notice in notices(output, plan, spec, grid):
            telling.say(notice)
        telling.say("summarising")
        return _finish(spec, output, plan, record, checked, grid)
    except KeyboardInterrupt:
        reason, interrupted = "stopped by Ctrl-C", True
    except StopRequested:
        reason = "stopped by a signal"
    except ShardError as error:
        # What is committed cannot be read: that the same command goes on would be no advice.
        status, reason = "failed", str(error)
    except (FatalError, RetryableError) as error:
        reason = str(error)
        if not record.started_units:
            with suppress(FatalError, RetryableError):
                record.write(output, plan, "stopped", reason=reason)
            raise
    # Where the disk is full or the store silent nothing more can be looked up or written either; why the run stopped is
    # told all the same.
    left, failures = max(0, units - record.done), 0
    with suppress(FatalError, RetryableError):
        with suppress(ShardError):
            failures = sum(map(len, failed_samples(output, plan).values()))
        if beginning.over:
            # Units in flight may have been committed after the last report: what is left is looked up.
            left = len(make_plan(spec, checked, profile, output, partial(cached_index, output)).queue)
            if plan.claims is not None and not plan.claims.shared:
                record.done = units - left
        record.write(output, plan, status, failures=failures, reason=reason)
    return Result(
        status,
        record.name,
        None,
        record.done,
        left,
        failures,
        reason=reason,
        interrupted=interrupted,
        afresh=plan.fresh and not beginning.over,
    )


class _Beginning:
    """Makes room for what is computed; called when there are workers, so that who cannot start takes nothing away.

    Attributes:
        over: whether it was called, and has done it.
    """

    def __init__(self, output: Output, plan: Plan) -> None:
        self._output, self._plan = output, plan
        self.over = False

    def __call__(self) -> None:
        """Take away what is to be computed afresh, and say what each folder is."""
        output, variants = self._output, self._plan.job.variants
        if self._plan.fresh:
            with self._plan.claims.clearing() if self._plan.claims is not None else nullcontext():
                output.together(output.forget, variants)
        output.together(lambda path: output.describe(path, variants[path].description()), variants)
        self.over = True


def _finish(spec: JobSpec, output: Output, plan: Plan, record: RunRecord, checked: CheckedJob, grid: Grid) -> Result:
    """Summarise and draw what is committed."""
    # Drawing needs matplotlib, which a job that finds everything committed shall not wait for.
    from pipeline.report import build_report  # noqa: PLC0415

    failed, sizes = failed_samples(output, plan), split_sizes(plan)
    failures = sum(map(len, failed.values()))
    summary = summaries(output, plan, Noise(spec.seed), grid)
    too_many = any(len(positions) > spec.max_failed_share * sizes[split] for split, positions in failed.items())
    status: Literal["done", "failed"] = "failed" if plan.queue.lost or too_many else "done"
    record.write(output, plan, status, failures=failures, summary=summary)
    page = build_report(output, record.name, dataset=checked.dataset, samples=spec.report.samples)
    lost = tuple(f"{unit.variant} [{unit.start}, {unit.stop}): {why}" for unit, why in sorted(plan.queue.lost.items()))
    return Result(
        status,
        record.name,
        page,
        record.done,
        0,
        failures,
        lost,
        len(plan.queue.stranded),
        elsewhere=record.elsewhere,
        reasons=common_reasons(failed),
    )


def _same_run(
    output: Output, earlier: Sequence[dict[str, Any]], record: RunRecord
) -> tuple[dict[str, Any], str] | None:
    """The latest earlier run with the very same spec and variants, whose summary and page still hold, and its page."""
    keys = ("spec", "variants", "samples")
    for one in reversed(earlier):
        if one["status"] == "done" and all(one.get(key) == record.facts[key] for key in keys):
            page = f"report/{one.get('same_as') or one['run']}/index.html"
            if output.exists(page):
                return one, page
    return None

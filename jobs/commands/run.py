"""`heatline run`."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from jobs.cli import FAILED, INTERRUPTED, MISTAKE, OK, STOPPED
from jobs.console import counted, plain
from jobs.headline import Headline, headlines
from jobs.junit import refused_cases, run_cases, write_junit
from jobs.log import STANDARD_ERROR, logging_to
from jobs.notify import (
    VARIABLE,
    check_address,
    deliver,
    hide_address,
    refusal_message,
    run_message,
    without_address,
)
from jobs.profile import load_profile
from jobs.progress import Progress
from jobs.run import Result
from jobs.run import run as run_job
from jobs.spec import JobSpec, load_spec
from pipeline.errors import FatalError, RetryableError, ShardError
from pipeline.filesystem import file_address
from pipeline.store import open_output

_LISTED = 12  # lost units named one by one

LOG_VARIABLE = "HEATLINE_LOG"
"""Environment variable that names the log, for containers."""


@click.command()
@click.argument("spec")
@click.option(
    "--profile", help="a profile's name (laptop, node, cluster, growing, local) or file; default: what is here"
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="change a key of the spec")
@click.option("--fresh", is_flag=True, help="compute everything again")
@click.option(
    "--notify",
    metavar="URL",
    envvar=VARIABLE,
    help=f"post status, counts and best figures there at the end, as JSON; default: ${VARIABLE}",
)
@click.option("--junit", metavar="FILE", type=click.Path(path_type=Path), help="write a JUnit file, a case a variant")
@click.option(
    "--log",
    metavar="FILE",
    envvar=LOG_VARIABLE,
    help=f"add a JSON line an event; - is standard error, in place of the display; default: ${LOG_VARIABLE}",
)
@click.option("--json", "as_json", is_flag=True, help="print the result as JSON")
def run(
    spec: str,
    profile: str | None,
    overrides: tuple[str, ...],
    fresh: bool,
    notify: str | None,
    junit: Path | None,
    log: str | None,
    as_json: bool,
) -> int:
    """Run the job of SPEC, or finish what an earlier run of it left."""
    if notify:
        check_address(notify)
        hide_address(notify)
    job: JobSpec | None = None
    with logging_to(log) as lines:
        try:
            if junit is not None:
                # That it cannot be written is told now; and it is nobody's if the run does not begin.
                write_junit(junit, f"heatline run {spec}", refused_cases(Path(spec).stem, "the run has not ended"))
            job = load_spec(spec, overrides)
            shown = Progress(None if log != STANDARD_ERROR else Console(quiet=True))
            result = run_job(job, load_profile(profile), shown, lines, fresh=fresh)
        except (FatalError, RetryableError, ShardError) as error:
            lines.say("refused", str(error), logging.ERROR)
            _refuse(job.name if job is not None else Path(spec).stem, str(error), notify, junit)
            if log != STANDARD_ERROR:
                raise
            return STOPPED if isinstance(error, RetryableError) else MISTAKE
    page = file_address(job.output, result.page) if result.page else None
    if as_json:
        click.echo(json.dumps({**asdict(result), "output": job.output, "page": page}))
    else:
        _tell(result, job.output, page, advised=log != STANDARD_ERROR)
    _hand_on(job, result, notify, junit)
    if result.status == "stopped":
        return INTERRUPTED if result.interrupted else STOPPED
    return FAILED if result.status == "failed" else OK


def _refuse(name: str, reason: str, notify: str | None, junit: Path | None) -> None:
    """Tell continuous integration and a webhook of a run that did not begin."""
    if notify:
        _deliver(notify, refusal_message(name, reason))
    if junit is not None:
        with suppress(FatalError):
            write_junit(junit, f"heatline run {name}", refused_cases(name, reason))


def _hand_on(job: JobSpec, result: Result, notify: str | None, junit: Path | None) -> None:
    """To a webhook and to continuous integration; that one cannot be told is a warning and changes no exit code."""
    try:
        if notify:
            _deliver(notify, run_message(open_output(job.output), result))
        if junit is not None:
            record = open_output(job.output).run(result.run)
            write_junit(junit, f"heatline run {result.run}", run_cases(record), record["started"])
    except (FatalError, RetryableError, ShardError) as error:
        click.echo(f"warning: not everybody was told: {plain(' '.join(str(error).split()))}", err=True)


def _deliver(address: str, message: dict[str, Any]) -> None:
    if trouble := deliver(address, message):
        click.echo(f"warning: the webhook was not reached: {trouble}", err=True)


def _tell(result: Result, output: str, page: str | None, *, advised: bool) -> None:
    """How it ended; what to do about it (`advised`) unless the log takes the place of all that."""
    if advised:
        _advise(result)
    if result.status == "stopped":
        return
    if advised:
        _show_best(output, result.run)
    what = f"{result.done} units computed" if result.done else "nothing to do: every unit was committed before"
    if result.elsewhere:
        what = f"{result.done} units computed, {result.elsewhere} by another run at the same time"
    click.echo(f"{what}; output {output}")
    if page:
        click.echo(f"report {page}")
        click.echo(f"       {file_address(output, 'report/index.html')} is always the latest")


def _show_best(output: str, run: str) -> None:
    """The best figure of each measure, on standard error; the report has all."""
    found: list[Headline] = []
    # The run is over: that its figures cannot be looked up now changes nothing of it.
    with suppress(FatalError, RetryableError, ShardError):
        found = headlines(open_output(output).run(run))
    if not found:
        return
    click.echo("the best by each measure, the random control aside:", err=True)
    titles = [f"{one.title} {'↑' if one.higher_is_better else '↓'}" for one in found]
    widest, longest = max(map(len, titles)), max(len(one.method) for one in found)
    for title, one in zip(titles, found, strict=True):
        interval = "" if one.low is None or one.high is None else f" [{one.low:.3f}, {one.high:.3f}]"
        click.echo(f"  {title.ljust(widest)}  {one.method.ljust(longest)}  {one.mean:.3f}{interval}", err=True)


def _advise(result: Result) -> None:
    if result.status == "stopped":
        # What no signal stopped was stopped by something that somebody has to see to.
        mended = "" if result.reason.startswith("stopped by") else ", once that is mended"
        left = counted(result.left, "unit")
        click.echo(f"{plain(result.reason)}; {left} left. Go on with the same command{mended}:", err=True)
        click.echo(f"  {shlex.join(['heatline', *_again(sys.argv[1:], result)])}", err=True)
        return
    if result.reason:
        click.echo(plain(result.reason), err=True)
    for line in result.lost[:_LISTED]:
        click.echo(f"lost: {plain(line)}", err=True)
    if len(result.lost) > _LISTED:
        click.echo(f"lost: {len(result.lost) - _LISTED:,} more; the report has all", err=True)
    if result.stranded:
        click.echo(f"{result.stranded} units that wait for the lost ones were not done", err=True)
    if result.failures:
        click.echo(f"{counted(result.failures, 'sample')} failed; the report names each:", err=True)
    for reason, count in result.reasons:
        click.echo(f"  {count:,}: {plain(reason)}", err=True)


def _again(words: Sequence[str], result: Result) -> list[str]:
    """The command's words without the webhook's address, and without `--fresh` where that was done already."""
    return [word for word in without_address(words) if word != "--fresh" or result.afresh]

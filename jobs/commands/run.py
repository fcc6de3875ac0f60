"""`heatline run`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from jobs.cli import FAILED, INTERRUPTED, OK, STOPPED
from jobs.junit import run_cases, write_junit
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
from pipeline.errors import FatalError, RetryableError
from pipeline.store import open_output


@click.command()
@click.argument("spec")
@click.option("--profile", help="a profile's name (laptop, node, cluster, local) or file; default: by what is here")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="change a key of the spec")
@click.option("--fresh", is_flag=True, help="compute everything again")
@click.option(
    "--notify",
    metavar="URL",
    envvar=VARIABLE,
    help=f"post status, counts and best figures there at the end, as JSON; default: ${VARIABLE}",
)
@click.option("--junit", metavar="FILE", type=click.Path(path_type=Path), help="write a JUnit file, a case a variant")
@click.option("--json", "as_json", is_flag=True, help="print the result as JSON")
def run(
    spec: str,
    profile: str | None,
    overrides: tuple[str, ...],
    fresh: bool,
    notify: str | None,
    junit: Path | None,
    as_json: bool,
) -> int:
    """Run the job of SPEC, or finish what an earlier run of it left."""
    if notify:
        check_address(notify)
        hide_address(notify)
    job = load_spec(spec, overrides)
    try:
        result = run_job(job, load_profile(profile), Progress(), fresh=fresh)
    except (FatalError, RetryableError) as error:
        if notify:
            _deliver(notify, refusal_message(job.name, job.output, str(error)))
        raise
    page = f"{job.output}/{result.page}" if result.page else None
    if as_json:
        click.echo(json.dumps({**asdict(result), "output": job.output, "page": page}))
    else:
        _tell(result, job.output, page)
    _hand_on(job, result, notify, junit)
    if result.status == "stopped":
        return INTERRUPTED if result.interrupted else STOPPED
    return FAILED if result.status == "failed" else OK


def _hand_on(job: JobSpec, result: Result, notify: str | None, junit: Path | None) -> None:
    """To continuous integration, and to a webhook."""
    if junit is not None:
        record = open_output(job.output).run(result.run)
        write_junit(junit, f"heatline run {result.run}", run_cases(record), record["started"])
    if notify:
        try:
            message = run_message(open_output(job.output), result)
        except (FatalError, RetryableError) as error:
            click.echo(f"warning: the webhook was told nothing: {' '.join(str(error).split())}", err=True)
            return
        _deliver(notify, message)


def _deliver(address: str, message: dict[str, Any]) -> None:
    if trouble := deliver(address, message):
        click.echo(f"warning: the webhook was not reached: {trouble}", err=True)


def _tell(result: Result, output: str, page: str | None) -> None:
    if result.status == "stopped":
        click.echo(f"{result.reason}; {result.left} units are left. Go on with the same command:", err=True)
        click.echo(f"  {shlex.join(['heatline', *_again(sys.argv[1:])])}", err=True)
        return
    for line in result.lost:
        click.echo(f"lost: {line}", err=True)
    if result.stranded:
        click.echo(f"{result.stranded} units that wait for the lost ones were not done", err=True)
    if result.failures:
        click.echo(f"{result.failures} samples failed; the report says why", err=True)
    what = f"{result.done} units computed" if result.done else "nothing to do: every unit was committed before"
    click.echo(f"{what}; output {output}")
    if page:
        click.echo(f"report {page}")
        click.echo(f"       {output}/report/index.html is always the latest")


def _again(words: Sequence[str]) -> list[str]:
    """The command's words but `--fresh`, which would throw away what has just been done, and the webhook's address."""
    return [word for word in without_address(words) if word != "--fresh"]

"""`heatline status`, `heatline logs`, `heatline stop`: jobs that were submitted."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from jobs.cli import OK
from jobs.console import plain, wide_console
from jobs.following import address_option, as_dict, ending, follow_job, shown
from jobs.left_out import left_out_warning
from jobs.status import RunProgress, current_runs, progress_of
from jobs.status_table import duration, print_progress
from pipeline.errors import FatalError, RetryableError
from pipeline.store import open_output

if TYPE_CHECKING:
    from cluster.submission import Submission
    from cluster.submit import Jobs

# Clocks of the cluster and of the store may differ by this much.
_CLOCKS = timedelta(minutes=5)


@click.command()
@click.argument("what", metavar="[ID|OUTPUT]", required=False)
@address_option
@click.option("--json", "as_json", is_flag=True, help="print it as JSON")
def status(what: str | None, address: str | None, as_json: bool) -> None:
    """Tell how far a submitted job is, or the runs of an OUTPUT; without either, list the cluster's jobs.

    A job's state is Ray's; its stages are read from its output where that can be read from here, else the last line
    that it printed is shown. Of an output the runs that are alive are told, else the latest; no cluster is asked.
    """
    if what is not None and _is_output(what):
        unreadable: list[str] = []
        *others, progress = current_runs(what, left_out=unreadable.append)
        if unreadable:
            click.echo(left_out_warning(unreadable), err=True)
        if as_json:
            click.echo(json.dumps({**progress.as_dict(), "others": [one.as_dict() for one in others]}))
        else:
            for one in (*others, progress):
                print_progress(one, wide_console())
        return
    jobs = _jobs(address)
    if what is None:
        found = jobs.all()
        if as_json:
            click.echo(json.dumps([as_dict(job) for job in found]))
        else:
            _list(found, jobs.address)
        return
    job = jobs.find(what)
    progress_there, line = _progress(job), None
    if progress_there is None:
        line = next((line for line in reversed(jobs.logs(what).splitlines()) if line.strip()), None)
    if as_json:
        stages = progress_there.as_dict() if progress_there else None
        click.echo(json.dumps({**as_dict(job), "progress": stages, "last_line": line}))
        return
    _tell(job, progress_there, line)


@click.command()
@click.argument("identifier", metavar="ID")
@address_option
@click.option("--follow", is_flag=True, help="go on until the job ends; the exit code is its own")
@click.option("--json", "as_json", is_flag=True, help="print it as JSON; with --follow the job, at its end")
def logs(identifier: str, address: str | None, follow: bool, as_json: bool) -> int:
    """Print what the job with this ID has printed."""
    jobs = _jobs(address)
    job = jobs.find(identifier)
    if follow:
        return follow_job(jobs, job.id, as_json=as_json)
    text = jobs.logs(job.id)
    click.echo(json.dumps({"id": job.id, "logs": text}) if as_json else shown(text), nl=as_json)
    return OK


@click.command()
@click.argument("identifier", metavar="ID")
@address_option
@click.option("--json", "as_json", is_flag=True, help="print the job as JSON")
def stop(identifier: str, address: str | None, as_json: bool) -> None:
    """Stop the job with this ID, and wait until it has written its record. Submitted again, it goes on."""
    jobs = _jobs(address)
    job, ran = jobs.stop(identifier)
    if as_json:
        click.echo(json.dumps({**as_dict(job), "ran": ran}))
    elif ran:
        click.echo(f"{job.id}: stopped; submitted again, it goes on where it was")
    else:
        click.echo(f"{job.id}: has ended before ({ending(job)})")


def _jobs(address: str | None) -> Jobs:
    # Ray takes seconds to import, which the status of an output shall not wait for.
    from cluster.dashboard import find_address  # noqa: PLC0415
    from cluster.submit import Jobs  # noqa: PLC0415

    return Jobs(find_address(address))


def _is_output(what: str) -> bool:
    return "://" in what or "/" in what or Path(what).is_dir()


def _progress(job: Submission) -> RunProgress | None:
    """The stages of a job, from the record that names it; None where there is none (yet), or none to be seen here."""
    if job.output is None or job.submitted is None:
        return None
    earliest = f"{job.submitted - _CLOCKS:%Y%m%dT%H%M%S}"
    try:
        output = open_output(job.output)
        names = [name for name in output.runs() if name >= earliest]
        for record in output.records(reversed(names), left_out=lambda _: None):
            if record.get("submission") == job.id:
                return progress_of(output, record["run"])
    except (FatalError, RetryableError):
        # A folder of the cluster's, or a store that this machine has no key to.
        return None
    return None


def _tell(job: Submission, progress: RunProgress | None, line: str | None) -> None:
    console = wide_console()
    console.print(Text(plain(f"{job.id}: {ending(job)}{_took(job)}")), soft_wrap=True)
    if job.output is not None:
        console.print(Text(plain(f"output {job.output}")), soft_wrap=True)
    if progress is not None:
        print_progress(progress, console)
    elif line is not None:
        console.print(Text(plain(f"last line of its log: {line}")), soft_wrap=True)


def _list(found: list[Submission], address: str) -> None:
    console = wide_console()
    if not found:
        console.print(Text(f"no job was submitted to {address} yet"), soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "state", "submitted (UTC)", "took", "profile", "output"):
        table.add_column(heading, no_wrap=True)
    for job in found:
        cells: list[Any] = [
            job.id,
            ending(job).partition(":")[0],
            f"{job.submitted:%Y-%m-%d %H:%M:%S}" if job.submitted else "",
            _took(job).removeprefix(", "),
            job.profile or "",
            job.output or "",
        ]
        table.add_row(*(Text(plain(cell)) for cell in cells))
    console.print(table)


def _took(job: Submission) -> str:
    if job.submitted is None:
        return ""
    return f", {duration(((job.ended or datetime.now(UTC)) - job.submitted).total_seconds())}"

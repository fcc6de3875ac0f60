"""What the commands about submitted jobs share: how a job is told, and how one is followed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from jobs.cli import INTERRUPTED, STOPPED
from jobs.console import plain

if TYPE_CHECKING:
    # Ray takes seconds to import, which the status of an output shall not wait for.
    from cluster.submission import Submission
    from cluster.submit import Jobs

address_option = click.option(
    "--address",
    metavar="URL",
    help="the cluster's dashboard, such as http://127.0.0.1:8265; default: $RAY_API_SERVER_ADDRESS or $RAY_ADDRESS",
)


def follow_job(jobs: Jobs, identifier: str, *, as_json: bool, said: dict[str, Any] | None = None) -> int:
    """Print what a job prints until it ends; Ctrl-C ends the printing, and not the job.

    Args:
        jobs: the cluster's.
        identifier: of the job.
        as_json: keep standard output for one JSON object at the end.
        said: what is to stand in it besides the job.

    Returns:
        The job's exit code.
    """
    try:
        for piece in jobs.follow(identifier):
            click.echo(shown(piece), nl=False, err=as_json)
    except KeyboardInterrupt:
        click.echo("\nthe job goes on:", err=True)
        advise(identifier, jobs.address, lambda line: click.echo(line, err=True))
        return INTERRUPTED
    job = jobs.find(identifier)
    if as_json:
        click.echo(json.dumps(as_dict(job) | (said or {})))
    else:
        click.echo(f"{job.id}: {ending(job)}", err=True)
    return STOPPED if job.exit_code is None else job.exit_code


def as_dict(job: Submission) -> dict[str, Any]:
    """A job for JSON."""
    times = {key: time and time.isoformat(timespec="seconds") for key, time in _times(job).items()}
    return {**asdict(job), **times}


def ending(job: Submission) -> str:
    """A job's state in words, with its exit code and why where that is known."""
    text = f"{job.state}, exit code {job.exit_code}" if job.state == "failed" else job.state
    return f"{text}: {plain(job.reason)}" if job.reason else text


def shown(text: str) -> str:
    """Lines of a log, of which a terminal obeys none."""
    return "\n".join(plain(line.expandtabs()) for line in text.split("\n"))


def _times(job: Submission) -> dict[str, Any]:
    return {"submitted": job.submitted, "ended": job.ended}


def advise(identifier: str, address: str, say: Callable[[str], object]) -> None:
    """Say what can be asked about a job."""
    for words, what in (
        (f"status {identifier}", "how far it is"),
        (f"logs {identifier} --follow", "what it prints"),
        (f"stop {identifier}", "what is committed stays"),
    ):
        say(f"  {f'heatline {words} --address {address}':<80} {what}")

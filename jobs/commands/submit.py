"""`heatline submit`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cluster.dashboard import find_address
from cluster.submission import STOPPED, Submission
from cluster.submit import Jobs
from jobs.cli import INTERRUPTED, OK
from jobs.console import plain
from jobs.notify import VARIABLE, check_address, hide_address, without_address
from jobs.spec import load_spec
from jobs.submit import make_parcel

address_option = click.option(
    "--address",
    metavar="URL",
    help="the cluster's dashboard, such as http://127.0.0.1:8265; default: $RAY_API_SERVER_ADDRESS or $RAY_ADDRESS",
)


def _absolute(ctx: click.Context, param: click.Parameter, folders: tuple[str, ...]) -> tuple[str, ...]:
    for folder in folders:
        if not Path(folder).is_absolute():
            raise click.BadParameter(f"expected an absolute folder, got '{folder}'", ctx, param)
    return folders


@click.command()
@click.argument("spec")
@address_option
@click.option("--follow", is_flag=True, help="print what it prints until it ends; the exit code is its own")
@click.option("--profile", help="a profile's name or file; default: cluster where a node has a GPU, else cluster-cpu")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="change a key of the spec")
@click.option("--fresh", is_flag=True, help="compute everything again")
@click.option(
    "--notify", metavar="URL", envvar=VARIABLE, help=f"post how it ended there, as run does; default: ${VARIABLE}"
)
@click.option(
    "--on-cluster",
    multiple=True,
    metavar="FOLDER",
    callback=_absolute,
    help="a folder that the nodes see and this machine need not: paths in it are not looked for here",
)
@click.option("--python", metavar="PATH", help="the nodes' interpreter [this one's path if it is there, else python]")
@click.option("--json", "as_json", is_flag=True, help="print the job as JSON; with --follow at its end")
def submit(
    spec: str,
    address: str | None,
    follow: bool,
    profile: str | None,
    overrides: tuple[str, ...],
    fresh: bool,
    notify: str | None,
    on_cluster: tuple[str, ...],
    python: str | None,
    as_json: bool,
) -> int:
    """Run the job of SPEC on a Ray cluster, through Ray Jobs.

    The program goes along, so that the nodes need Ray, PyTorch and the other packages, and no heatline. Submitted
    again while it runs, it is not started twice; after it has ended, it goes on where it stopped.
    """
    if notify:
        check_address(notify)
        hide_address(notify)
    load_spec(spec, overrides)
    jobs = Jobs(find_address(address))
    parcel = make_parcel(
        spec,
        overrides,
        profile or ("cluster" if jobs.has_gpus() else "cluster-cpu"),
        fresh=fresh,
        webhook=notify,
        elsewhere=on_cluster,
        python=python,
        command=without_address(sys.argv[1:]),
    )
    job, attached = jobs.submit(parcel)
    said = {"address": jobs.address, "attached": attached}
    if not as_json:
        _tell(job, jobs.address, attached=attached, advised=not follow)
    if attached and notify:
        click.echo("warning: --notify came too late for a job that was submitted before", err=True)
    if follow:
        return follow_job(jobs, job.id, as_json=as_json, said=said)
    if as_json:
        click.echo(json.dumps(as_dict(job) | said))
    return OK


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
        _advise(identifier, jobs.address, lambda line: click.echo(line, err=True))
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


def _tell(job: Submission, address: str, *, attached: bool, advised: bool) -> None:
    if attached:
        click.echo(f"{job.id} is {job.state} at {address} already; nothing was sent")
    else:
        click.echo(f"submitted {job.id} to {address}: profile {job.profile}, output {job.output}")
    if advised:
        _advise(job.id, address, click.echo)


def _advise(identifier: str, address: str, say: Callable[[str], object]) -> None:
    for words, what in (
        (f"status {identifier}", "how far it is"),
        (f"logs {identifier} --follow", "what it prints"),
        (f"stop {identifier}", "what is committed stays"),
    ):
        say(f"  {f'heatline {words} --address {address}':<80} {what}")

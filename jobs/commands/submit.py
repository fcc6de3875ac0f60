"""`heatline submit`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from cluster.dashboard import find_address
from cluster.submission import Submission
from cluster.submit import Jobs
from jobs.cli import OK
from jobs.following import address_option, advise, as_dict, follow_job
from jobs.notify import VARIABLE, check_address, hide_address, without_address
from jobs.spec import load_spec
from jobs.submit import make_parcel


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
    job, attached = jobs.submit(parcel, lambda line: click.echo(line, err=True))
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


def _tell(job: Submission, address: str, *, attached: bool, advised: bool) -> None:
    if attached:
        click.echo(f"{job.id} is {job.state} at {address} already; nothing was sent")
    else:
        click.echo(f"submitted {job.id} to {address}: profile {job.profile}, output {job.output}")
    if advised:
        advise(job.id, address, click.echo)

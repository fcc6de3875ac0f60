"""`heatline run`."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict

import click

from jobs.cli import FAILED, INTERRUPTED, OK, STOPPED
from jobs.profile import load_profile
from jobs.progress import Progress
from jobs.run import Result
from jobs.run import run as run_job
from jobs.spec import load_spec


@click.command()
@click.argument("spec")
@click.option("--profile", help="a profile's name (laptop, node, cluster, local) or file; default: by what is here")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="change a key of the spec")
@click.option("--fresh", is_flag=True, help="compute everything again")
@click.option("--json", "as_json", is_flag=True, help="print the result as JSON")
def run(spec: str, profile: str | None, overrides: tuple[str, ...], fresh: bool, as_json: bool) -> int:
    """Run the job of SPEC, or finish what an earlier run of it left."""
    job = load_spec(spec, overrides)
    result = run_job(job, load_profile(profile), Progress(), fresh=fresh)
    page = f"{job.output}/{result.page}" if result.page else None
    if as_json:
        click.echo(json.dumps({**asdict(result), "output": job.output, "page": page}))
    else:
        _tell(result, job.output, page)
    if result.status == "stopped":
        return INTERRUPTED if result.interrupted else STOPPED
    return FAILED if result.status == "failed" else OK


def _tell(result: Result, output: str, page: str | None) -> None:
    if result.status == "stopped":
        click.echo(f"{result.reason}; {result.left} units are left. Go on with the same command:", err=True)
        # --fresh would throw away what has just been done.
        again = [word for word in sys.argv[1:] if word != "--fresh"]
        click.echo(f"  {shlex.join(['heatline', *again])}", err=True)
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

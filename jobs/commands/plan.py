"""`heatline plan`."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.table import Table

from jobs.console import wide_console
from jobs.estimate import StageEstimate, estimate
from jobs.prepare import prepare
from jobs.profile import load_profile
from jobs.spec import load_spec


@click.command()
@click.argument("spec")
@click.option("--profile", help="a profile's name or file, as for run")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="change a key of the spec")
@click.option("--json", "as_json", is_flag=True, help="print the plan as JSON")
def plan(spec: str, profile: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Tell what running SPEC would take: stages, units, passes, time and bytes."""
    job = load_spec(spec, overrides)
    output, checked, laid_out = prepare(job, load_profile(profile))
    rows = estimate(laid_out, output)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "name": job.name,
                    "output": job.output,
                    "samples": len(checked.dataset),
                    "stages": [asdict(row) for row in rows],
                }
            )
        )
        return
    console = wide_console()
    console.print(f"{job.name}: {len(checked.dataset)} samples, output {job.output}", markup=False, soft_wrap=True)
    console.print(_table(rows))
    if any(row.seconds is None and row.samples for row in rows):
        console.print("Time is foretold once a worker has measured the model in this output.")


def _table(rows: list[StageEstimate]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in (
        "stage",
        "model",
        "units to do",
        "rows done",
        "rows to do",
        "forwards ≤",
        "backwards ≤",
        "one worker",
        "to write",
    ):
        table.add_column(heading, justify="left" if heading in ("stage", "model") else "right")
    for row in rows:
        table.add_row(
            row.stage,
            row.model,
            f"{row.units:,}",
            f"{row.done:,}",
            f"{row.samples:,}",
            f"{row.cost.forwards:,.0f}",
            f"{row.cost.backwards:,.0f}",
            "?" if row.seconds is None else _duration(row.seconds),
            _size(row.bytes),
        )
    return table


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"

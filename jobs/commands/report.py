"""`heatline report`."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path

import click

from jobs.run_name import find_run
from jobs.spec import ReportConfig
from pipeline.report import build_report, run_dataset


@click.command()
@click.argument("output", metavar="RUN")
@click.option("--run", "name", help="name of a run; default: the latest")
@click.option("--samples", type=click.IntRange(min=0), help="images in the gallery; default: as in the run's spec")
@click.option("--open", "show", is_flag=True, help="open the page in a browser")
@click.option("--json", "as_json", is_flag=True, help="print the page's place as JSON")
def report(output: str, name: str | None, samples: int | None, show: bool, as_json: bool) -> None:
    """Build the page of a run again. RUN is an output, OUTPUT@RUN, or a run's record (OUTPUT/runs/NAME.json)."""
    opened, found = find_run(output)
    record = opened.run(name or found)
    # A run that found everything done by an earlier one has no page of its own.
    run = str(record.get("same_as") or record["run"])
    asked = (record["spec"].get("report") or {}).get("samples", ReportConfig().samples)
    count = asked if samples is None else samples
    page = build_report(opened, run, dataset=run_dataset(opened, record), samples=count)
    place = opened.place(page)
    click.echo(json.dumps({"page": place}) if as_json else place)
    if show:
        webbrowser.open(place if "://" in place else Path(place).absolute().as_uri())

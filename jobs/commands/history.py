"""`heatline history`."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from jobs.console import wide_console
from pipeline.store import open_output


@click.command()
@click.argument("output")
@click.option("--json", "as_json", is_flag=True, help="print the runs as JSON")
def history(output: str, as_json: bool) -> None:
    """List the runs under OUTPUT, with their headline figures over time."""
    opened = open_output(output)
    records = [opened.run(name) for name in opened.runs()]
    if as_json:
        keys = ("run", "name", "status", "started", "seconds", "samples", "units", "failures")
        click.echo(
            json.dumps(
                [
                    {**{key: record.get(key) for key in keys}, "summary": [_figures(row) for row in record["summary"]]}
                    for record in records
                ],
                indent=1,
            )
        )
        return
    console = wide_console()
    if not records:
        console.print("no run yet")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "status", "seconds", "samples", "units done", "reused", "failed"):
        table.add_column(heading, justify="left" if heading in ("run", "status") else "right", no_wrap=True)
    for record in records:
        table.add_row(
            record["run"],
            record["status"],
            f"{record['seconds']:.0f}",
            f"{record['samples']}",
            f"{record['units']['done']}",
            f"{record['units']['reused']}",
            f"{record['failures']}",
        )
    console.print(table)
    best = {record["run"]: _best(record) for record in records}
    measures = list(dict.fromkeys(measure for found in best.values() for measure in found))
    if not measures:
        return
    table = Table(
        box=None, pad_edge=False, title="the best method's mean, the random control aside", title_justify="left"
    )
    table.add_column("run", no_wrap=True)
    for measure in measures:
        table.add_column(escape(measure))
    for name, found in best.items():
        table.add_row(name, *(escape(found.get(measure, "")) for measure in measures))
    console.print()
    console.print(table)


def _figures(row: dict[str, Any]) -> dict[str, Any]:
    """A measure without its curve, which the record holds."""
    curve = ("axis", "fractions", "curve", "vertical", "horizontal")
    return {key: value for key, value in row.items() if key not in curve}


def _best(record: dict[str, Any]) -> dict[str, str]:
    """The best method of each model and measure, with its mean."""
    programs = {one["id"]: one["config"]["name"] for one in record["spec"]["methods"]}
    columns: dict[str, list[dict[str, Any]]] = {}
    for row in record["summary"]:
        # Retraining has a random arm also where the spec has no method of that name.
        if row["mean"] is not None and programs.get(row["method"], row["method"]) != "random":
            name = row["metric"] if row["measure"] in ("auc", row["metric"]) else f"{row['metric']} {row['measure']}"
            columns.setdefault(f"{row['model']} {name}", []).append(row)
    found = {}
    for name, rows in columns.items():
        best = max(rows, key=lambda row: row["mean"] if row["higher_is_better"] else -row["mean"])
        found[name] = f"{best['mean']:.3f} {best['method']}"
    return found

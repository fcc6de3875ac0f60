"""`heatline history`."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from pipeline.store import open_output


@click.command()
@click.argument("output")
@click.option("--json", "as_json", is_flag=True, help="print the runs as JSON")
def history(output: str, as_json: bool) -> None:
    """List the runs under OUTPUT, with their headline figures over time."""
    opened = open_output(output)
    records = [opened.run(name) for name in opened.runs()]
    if as_json:
        keys = ("run", "name", "status", "started", "seconds", "samples", "units", "failures", "summary")
        click.echo(json.dumps([{key: record.get(key) for key in keys} for record in records]))
        return
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "status", "seconds", "samples", "units done", "reused", "failed", "best"):
        table.add_column(heading, justify="left" if heading in ("run", "status", "best") else "right", overflow="fold")
    for record in records:
        table.add_row(
            record["run"],
            record["status"],
            f"{record['seconds']:.0f}",
            f"{record['samples']}",
            f"{record['units']['done']}",
            f"{record['units']['reused']}",
            f"{record['failures']}",
            _best(record["summary"]),
        )
    console.print(table if records else "no run yet")


def _best(summary: list[dict[str, Any]]) -> str:
    """The best method of each model and measure, with its mean."""
    columns: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in summary:
        if row["mean"] is not None:
            columns.setdefault((row["model"], row["metric"], row["measure"]), []).append(row)
    found = []
    for (model, metric, _), rows in columns.items():
        best = max(rows, key=lambda row: row["mean"] if row["higher_is_better"] else -row["mean"])
        found.append(f"{model} {metric} {best['mean']:.3f} ({best['method']})")
    return "\n".join(found)

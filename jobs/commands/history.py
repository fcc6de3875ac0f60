"""`heatline history`."""

from __future__ import annotations

import json
import webbrowser
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from jobs.console import wide_console
from jobs.headline import headlines
from jobs.left_out import left_out_warning
from jobs.status import progress_of
from pipeline.store import Output, open_output


@click.command()
@click.argument("output")
@click.option("--page", is_flag=True, help="write a page with every figure over time, report/history.html")
@click.option("--open", "show", is_flag=True, help="write the page and open it in a browser")
@click.option("--json", "as_json", is_flag=True, help="print the runs (with --page: the page's place) as JSON")
def history(output: str, page: bool, show: bool, as_json: bool) -> None:
    """List the runs under OUTPUT, with their headline figures over time."""
    opened = open_output(output)
    if page or show:
        # Drawing loads matplotlib, which a list shall not wait for.
        from pipeline.report import build_history  # noqa: PLC0415

        place = opened.place(build_history(opened))
        click.echo(json.dumps({"page": place}) if as_json else place)
        if show:
            webbrowser.open(place if "://" in place else Path(place).absolute().as_uri())
        return
    names, unreadable = opened.runs(), list[str]()
    records = [_with_state(opened, record) for record in opened.records(names, unreadable.append)]
    if unreadable:
        click.echo(left_out_warning(unreadable), err=True)
    if as_json:
        keys = ("run", "name", "status", "same_as", "started", "seconds", "samples", "units", "failures")
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
        console.print("no run whose record can be read" if names else "no run yet")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "status", "seconds", "samples", "units done", "reused", "failed"):
        table.add_column(heading, justify="left" if heading in ("run", "status") else "right", no_wrap=True)
    for streak in _streaks(records):
        record = streak[-1]
        table.add_row(
            record["run"],
            _status(streak),
            f"{record['seconds']:.0f}",
            f"{record['samples']}",
            f"{record['units'].get('done', 0)}",
            f"{record['units'].get('reused', 0)}",
            f"{record['failures']}",
        )
    console.print(table)
    best = {record["run"]: _best(record) for record in records if not record.get("same_as")}
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


def _with_state(output: Output, record: dict[str, Any]) -> dict[str, Any]:
    """The record; of a run that did not end, whether it is `running` or `silent`."""
    return {**record, "status": progress_of(output, record["run"]).status} if record["status"] == "running" else record


def _streaks(records: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The runs; those one after the other that found everything as one and the same run had left it taken together."""
    grouped = groupby(records, key=lambda record: record.get("same_as") or (record["run"],))
    return [list(group) for _, group in grouped]


def _status(streak: list[dict[str, Any]]) -> str:
    status = str(streak[-1]["status"])
    if not streak[-1].get("same_as"):
        return status
    return f"{status}, nothing to do" + (f" ({len(streak)} runs)" if len(streak) > 1 else "")


def _figures(row: dict[str, Any]) -> dict[str, Any]:
    """A measure without its curve, which the record holds."""
    curve = ("axis", "fractions", "curve", "vertical", "horizontal")
    return {key: value for key, value in row.items() if key not in curve}


def _best(record: dict[str, Any]) -> dict[str, str]:
    """The best method of each model and measure, with its mean."""
    return {one.title: f"{one.mean:.3f} {one.method}" for one in headlines(record)}

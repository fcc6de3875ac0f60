"""`heatline list` and `heatline describe`: what there is to choose from."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import cast

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.catalog import COST_SETTING, KINDS, Entry, Kind, catalog, find
from pipeline.contracts import Cost


@click.command("list")
@click.argument("kind", required=False, type=click.Choice(KINDS))
@click.option("--json", "as_json", is_flag=True, help="Print a list with one object an entry.")
def list_entries(kind: str | None, as_json: bool) -> None:
    """List the methods, metrics, models and sources, or those of one KIND."""
    kinds = KINDS if kind is None else (cast(Kind, kind),)
    entries = [entry for each in kinds for entry in catalog(each)]
    if as_json:
        click.echo(json.dumps([_as_json(entry) for entry in entries], indent=2, ensure_ascii=False))
        return
    for each in kinds:
        rows = [(entry.name, entry.summary) for entry in entries if entry.kind == each]
        _print_rows(each, rows)


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print a list with one object an entry of that name.")
def describe(name: str, as_json: bool) -> None:
    """Show parameters, cost and origin of the method, metric, model or source called NAME."""
    entries = find(name)
    if as_json:
        click.echo(json.dumps([_as_json(entry) for entry in entries], indent=2, ensure_ascii=False))
        return
    for entry in entries:
        _print_entry(entry)


def _as_json(entry: Entry) -> dict[str, object]:
    return {key: value for key, value in dataclasses.asdict(entry).items() if value is not None}


def _print_entry(entry: Entry) -> None:
    click.echo(f"{entry.name} ({entry.kind.removesuffix('s')})")
    paragraphs = [entry.summary, *re.split(r"\n\n|\n(?=- )", entry.details)]
    if entry.source:
        paragraphs.append(f"Source: {entry.source}")
    if entry.cost is not None:
        paragraphs.append(f"Cost: {_cost(entry.cost)}")
    if entry.weights:
        paragraphs.append(f"Published weights: {', '.join(entry.weights)}")
    width = min(100, shutil.get_terminal_size((100, 24)).columns)
    for paragraph in filter(None, paragraphs):
        hanging = "    " if paragraph.startswith("- ") else "  "
        click.echo(textwrap.fill(paragraph, width, initial_indent="  ", subsequent_indent=hanging) + "\n")
    if entry.parameters:
        _print_rows(
            "parameters",
            [
                (
                    key.name,
                    key.type,
                    "required" if key.default is None else f"default {key.default}",
                    key.description,
                )
                for key in entry.parameters
            ],
        )


def _cost(cost: Cost) -> str:
    setting = COST_SETTING
    where = f"{setting.height} × {setting.width} pixels, {setting.classes:,} classes"
    if not cost.forwards and not cost.backwards:
        return "no pass through the model"
    return f"at most {cost.forwards:,g} forwards and {cost.backwards:,g} backwards a sample ({where})"


def _print_rows(title: str, rows: Sequence[tuple[str, ...]]) -> None:
    """A table in a terminal; elsewhere lines with aligned columns, for reading and for `grep`."""
    if sys.stdout.isatty():
        table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        Console().print(table)
        return
    click.echo(f"{title}:")
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  " + "  ".join([*cells, row[-1]]).rstrip())

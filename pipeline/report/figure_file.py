"""The figures of the page as files: CSV for programs, Markdown for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from pipeline.report.faithfulness import Row, Table, figure
from pipeline.stages.summarise import Summary

_COLUMNS = ("model", "method", "metric", "measure", "higher_is_better", "n", "missing", "mean", "low", "high")


def summary_csv(summary: Iterable[Summary]) -> str:
    """One line a model, method, metric and measure; means in full precision, empty where there is none."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for one in summary:
        values = (getattr(one, column) for column in _COLUMNS)
        writer.writerow([str(value).lower() if isinstance(value, bool) else value for value in values])
    return sink.getvalue()


def summary_markdown(title: str, tables: Iterable[Table]) -> str:
    """A table a model: mean [95 % interval], the best of a column in bold."""
    lines = [f"# {_plain(title)}", ""]
    for table in tables:
        lines += [f"## {_plain(table.model)}", ""]
        heads = ["method", *table.heads]
        lines += [_line(_plain(head) for head in heads), _line("---" for _ in heads)]
        lines += [_row(row) for row in (*table.rows, *([table.control] if table.control else []))]
        lines.append("")
    lines.append("Mean over samples [95 % bootstrap interval] (samples); the best of each column is bold.")
    return "\n".join(lines) + "\n"


def _row(row: Row) -> str:
    cells = [_plain(row.method)]
    for cell in row.cells:
        one = cell.summary
        if one is None or one.mean is None or one.low is None or one.high is None:
            cells.append("no value")
            continue
        mean = f"**{cell.mean}**" if cell.best else cell.mean
        note = f", {cell.verdict}" if cell.verdict else ""
        cells.append(f"{mean} [{figure(one.low)}, {figure(one.high)}] ({one.n}{note})")
    return _line(cells)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _plain(text: str) -> str:
    """Text that stays text inside a Markdown table."""
    for sign in "\\`*_[]<>|":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())

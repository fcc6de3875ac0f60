"""The page of an output's runs: what each was, and every figure over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import FatalError
from pipeline.report.cost import duration
from pipeline.report.fact import utc_time
from pipeline.report.heatmap import colour_stops
from pipeline.report.palette import palette
from pipeline.report.record import read_record
from pipeline.report.rerun import fingerprints
from pipeline.report.template import style_sheet, template
from pipeline.report.trend import HEIGHT, WIDTH, Visit, date_text, trends
from pipeline.store import Output

PAGE = "report/history.html"
MOST_RUNS = 200
"""Runs on the page, the latest: of weekly ones about four years."""


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run in the table.

    Attributes:
        run, status: its name, and how it ended.
        started, took: in words; empty where the record does not tell.
        samples, done, reused, failures: counts; None where the record cannot be read.
        page: its page, as a path from this one; empty where there is none.
    """

    run: str
    status: str
    started: str = ""
    took: str = ""
    samples: int | None = None
    done: int | None = None
    reused: int | None = None
    failures: int | None = None
    page: str = ""


def build_history(output: Output, most: int = MOST_RUNS) -> str:
    """Write the page of trends, `report/history.html`. The same records and pages give the same bytes.

    Args:
        output: where the runs are.
        most: runs shown, the latest.

    Returns:
        Name of the page under the output.

    Raises:
        FatalError: the output cannot be written.
    """
    names = output.runs()
    rows, visits = _runs(output, names[-most:])
    methods = dict.fromkeys(method for visit in reversed(visits) for method in visit.record.methods)
    control = next((visit.record.control for visit in reversed(visits) if visit.record.control), None)
    colours = palette(sorted(methods, key=lambda method: method == control), control)
    page = (
        template("history.html.j2")
        .render(
            title="Runs over time",
            output=output.uri,
            style=style_sheet(),
            heat=colour_stops(),
            series=colours,
            control=control,
            rows=rows[::-1],
            left_out=max(len(names) - most, 0),
            trends=trends(visits, colours),
            first=date_text(visits[0].time) if visits else "",
            last=date_text(visits[-1].time) if visits else "",
            width=WIDTH,
            height=HEIGHT,
        )
        .encode()
    )
    output.write_bytes(PAGE, page)
    return PAGE


def _runs(output: Output, names: Sequence[str]) -> tuple[list[RunRow], list[Visit]]:
    rows, visits = [], []
    for name in names:
        try:
            record = read_record(output, name, described=False)
        except FatalError:
            rows.append(RunRow(name, "its record cannot be read"))
            continue
        time = utc_time(record.started)
        page = f"{name}/index.html"
        rows.append(
            RunRow(
                run=name,
                status=record.status,
                started=date_text(time) if time else "",
                took=duration(record.seconds) if record.seconds and record.status != "running" else "",
                samples=record.samples,
                done=record.units.get("done"),
                reused=record.units.get("reused"),
                failures=record.failures,
                page=page if output.exists(f"report/{page}") else "",
            )
        )
        if record.summary and time is not None:
            visits.append(Visit(record, time, fingerprints(record)))
    return rows, sorted(visits, key=lambda visit: (visit.time, visit.record.run))

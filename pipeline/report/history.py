"""The page of an output's runs: what each was, and every figure over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import FatalError
from pipeline.report.cost import duration
from pipeline.report.fact import utc_time
from pipeline.report.heatmap import colour_stops
from pipeline.report.pair import fingerprints
from pipeline.report.palette import palette
from pipeline.report.record import RunRecord, read_record
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
        repeats: runs that one row stands for, which found everything as another had left it; 0 of any other run.
        since: when the first of those began, in words.
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
    repeats: int = 0
    since: str = ""


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
    runs = _latest(output, names, most)
    rows, visits = [_row(output, one) for one in runs], _visits(runs)
    shown = sum(one.count for one in runs)
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
            rows=rows,
            shown=shown,
            left_out=len(names) - shown,
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


@dataclass(slots=True)
class _Streak:
    """A run; or runs one after the other that found everything as one and the same run had left it.

    Attributes:
        run: the latest of them.
        record: its record; None where it cannot be read.
        count: how many they are.
        began: when the first of them began.
    """

    run: str
    record: RunRecord | None
    count: int = 1
    began: str | None = None


def _latest(output: Output, names: Sequence[str], most: int) -> list[_Streak]:
    """The latest runs first, those with nothing to do taken together."""
    found: list[_Streak] = []
    for name in reversed(names):
        try:
            record = read_record(output, name, described=False)
        except FatalError:
            record = None
        last = found[-1].record if found else None
        if record is not None and last is not None and record.same_as is not None and record.same_as == last.same_as:
            found[-1].count += 1
            found[-1].began = record.started
            continue
        if len(found) == most:
            break
        found.append(_Streak(name, record, began=record.started if record else None))
    return found


def _row(output: Output, streak: _Streak) -> RunRow:
    record = streak.record
    if record is None:
        return RunRow(streak.run, "its record cannot be read")
    time, since = utc_time(record.started), utc_time(streak.began)
    page = f"{streak.run}/index.html"
    return RunRow(
        run=streak.run,
        status=record.status,
        started=date_text(time) if time else "",
        took=duration(record.seconds) if record.seconds and record.status != "running" else "",
        samples=record.samples,
        done=record.units.get("done"),
        reused=record.units.get("reused"),
        failures=record.failures,
        page=page if output.exists(f"report/{page}") else "",
        repeats=streak.count if record.same_as else 0,
        since=date_text(since) if since else "",
    )


def _visits(runs: Sequence[_Streak]) -> list[Visit]:
    """The runs with figures, oldest first; of those taken together the latest."""
    found = []
    for record in (one.record for one in runs):
        time = utc_time(record.started) if record is not None else None
        if record is not None and record.summary and time is not None:
            lengths = {key: total for key, (_, total) in record.scored.items()}
            found.append(Visit(record, time, fingerprints(record), lengths))
    return sorted(found, key=lambda visit: (visit.time, visit.record.run))

"""Each figure over the runs of an output, as small drawings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Literal

from pipeline.report.faithfulness import Column, figure, signed
from pipeline.report.palette import Series
from pipeline.report.record import RunRecord
from pipeline.stages.summarise import Summary

Mark = Literal["new", "samples", "same"]

# Of a drawing, in units of its view box.
WIDTH, HEIGHT, _MARGIN = 320, 56, 6


@dataclass(frozen=True, slots=True)
class Visit:
    """A run that has figures.

    Attributes:
        record: its record.
        time: when it began, UTC.
        behind: by model, method and metric, the fingerprints of what its figures were taken from.
        lengths: likewise, how many samples were there to be looked at, where the record tells.
    """

    record: RunRecord
    time: datetime
    behind: Mapping[tuple[str, str, str], frozenset[str]]
    lengths: Mapping[tuple[str, str, str], int]


@dataclass(frozen=True, slots=True)
class Dot:
    """A run's figure as drawn.

    Attributes:
        x, y: its place.
        low, high: ends of its interval as heights; None without one.
        mark: against the run before: `new`: something behind the figure is not what it was, or its rows were computed
            again and came out otherwise; `samples`: more or fewer samples of the same; `same`: the same rows.
        text: run, mean and interval.
    """

    x: float
    y: float
    low: float | None
    high: float | None
    mark: Mark
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """One method's figure over the runs.

    Attributes:
        method: whose.
        series: how it is drawn.
        dots: a run each, oldest first.
        strokes: points of its lines; a run without the figure parts them.
        bands: outlines of its intervals, likewise.
        latest, interval: of the latest run that has it.
        run: that run, where it is not the latest of all; else empty.
        step, whole: the mean's change since the run before, and since the first; empty with one run.
        step_counts, whole_counts: how many samples or repeats are behind those two means, where they are not as many.
        description: what a reader who does not see the drawing is told.
    """

    method: str
    series: Series
    dots: tuple[Dot, ...]
    strokes: tuple[str, ...]
    bands: tuple[str, ...]
    latest: str
    interval: str
    run: str
    step: str
    whole: str
    step_counts: str
    whole_counts: str
    description: str


@dataclass(frozen=True, slots=True)
class Trend:
    """The methods of one model by one measure. All are drawn to one scale, each about its own middle.

    Attributes:
        model, column: what is measured.
        span: how much a drawing is high.
        lines: a method each, the control last.
    """

    model: str
    column: Column
    span: str
    lines: tuple[Line, ...]


def trends(visits: Sequence[Visit], colours: Mapping[str, Series]) -> list[Trend]:
    """A trend for each model and measure that has a value in some run, in the order of the latest run that has it.

    Args:
        visits: the runs, oldest first.
        colours: by method, in the order of lines.
    """
    found: dict[tuple[str, Column], dict[str, dict[int, Summary]]] = {}
    for number in reversed(range(len(visits))):
        for one in visits[number].record.summary:
            if one.mean is not None and one.method in colours:
                column = Column(one.metric, one.measure, one.higher_is_better)
                found.setdefault((one.model, column), {}).setdefault(one.method, {})[number] = one
    order = {method: place for place, method in enumerate(colours)}
    return [
        _trend(model, column, dict(sorted(methods.items(), key=lambda item: order[item[0]])), visits, colours)
        for (model, column), methods in found.items()
    ]


def _trend(
    model: str,
    column: Column,
    methods: Mapping[str, Mapping[int, Summary]],
    visits: Sequence[Visit],
    colours: Mapping[str, Series],
) -> Trend:
    ranges = {method: _range(runs.values()) for method, runs in methods.items()}
    span = max(top - bottom for bottom, top in ranges.values())
    scales = {
        method: ((bottom + top - span) / 2, (bottom + top + span) / 2) for method, (bottom, top) in ranges.items()
    }
    lines = (_line(method, runs, visits, scales[method], colours[method]) for method, runs in methods.items())
    return Trend(model, column, figure(span), tuple(lines))


def _range(found: Iterable[Summary]) -> tuple[float, float]:
    """The lowest and the highest end of means and intervals."""
    ends = [end for one in found for end in (one.mean, one.low, one.high) if end is not None]
    return min(ends), max(ends)


def _line(
    method: str,
    runs: Mapping[int, Summary],
    visits: Sequence[Visit],
    scale: tuple[float, float],
    series: Series,
) -> Line:
    dots = dict(_dots(runs, visits, scale))
    stretches = list(_stretches(sorted(dots)))
    numbers = sorted(runs)
    latest = runs[numbers[-1]]
    means = [mean for number in numbers if (mean := runs[number].mean) is not None]
    counts = [runs[number].n for number in numbers]
    differ = len(set(counts)) > 1
    return Line(
        method=method,
        series=series,
        dots=tuple(dots[number] for number in numbers),
        strokes=tuple(" ".join(f"{dots[n].x},{dots[n].y}" for n in some) for some in stretches if len(some) > 1),
        bands=tuple(band for some in stretches if (band := _band([dots[number] for number in some]))),
        latest=figure(means[-1]),
        interval=_interval(latest),
        run="" if numbers[-1] == len(visits) - 1 else visits[numbers[-1]].record.run,
        step=signed(means[-1] - means[-2]) if len(means) > 1 else "",
        whole=signed(means[-1] - means[0]) if len(means) > 1 else "",
        step_counts=_counts(counts[-2:]),
        whole_counts=_counts(counts),
        description=f"{method} over {len(means)} {'run' if len(means) == 1 else 'runs'}: "
        + ", ".join(figure(mean) + (f" (n {n:,})" if differ else "") for mean, n in zip(means, counts, strict=True)),
    )


def _dots(
    runs: Mapping[int, Summary], visits: Sequence[Visit], scale: tuple[float, float]
) -> Iterator[tuple[int, Dot]]:
    """The places of a method's figures, oldest run first."""
    start, stop = visits[0].time, visits[-1].time
    length, span = (stop - start).total_seconds(), scale[1] - scale[0]

    def across(time: datetime) -> float:
        share = (time - start).total_seconds() / length if length else 0.5
        return round(_MARGIN + share * (WIDTH - 2 * _MARGIN), 1)

    def up(value: float) -> float:
        share = (value - scale[0]) / span if span else 0.5
        return round(HEIGHT - _MARGIN - share * (HEIGHT - 2 * _MARGIN), 1)

    before: tuple[Summary, Visit] | None = None
    for number in sorted(runs):
        one, visit = runs[number], visits[number]
        interval = _interval(one)
        yield (
            number,
            Dot(
                x=across(visit.time),
                y=up(one.mean or 0.0),
                low=None if one.low is None else up(one.low),
                high=None if one.high is None else up(one.high),
                mark="new" if before is None else _mark(before, (one, visit)),
                text=f"{date_text(visit.time)}: {figure(one.mean or 0.0)}{interval and f' ({interval})'}, n {one.n:,}",
            ),
        )
        before = one, visit


def _mark(before: tuple[Summary, Visit], after: tuple[Summary, Visit]) -> Mark:
    """What is told of a run's figure beside that of the run before."""
    (old, earlier), (new, later) = before, after
    key = (new.model, new.method, new.metric)
    behind = later.behind.get(key)
    if behind is None or behind != earlier.behind.get(key):
        return "new"
    if old.n != new.n or earlier.lengths.get(key) != later.lengths.get(key):
        return "samples"
    return "same" if (old.mean, old.missing) == (new.mean, new.missing) else "new"


def _counts(found: Sequence[int]) -> str:
    return f"n {found[0]:,} to {found[-1]:,}" if found[0] != found[-1] else ""


def _stretches(numbers: Sequence[int]) -> Iterator[list[int]]:
    """Runs one after the other."""
    stretch = list(numbers[:1])
    for earlier, later in pairwise(numbers):
        if later != earlier + 1:
            yield stretch
            stretch = []
        stretch.append(later)
    yield stretch


def _band(dots: Sequence[Dot]) -> str:
    """The outline of the intervals; empty where one is missing, or there is one alone."""
    highs = [(dot.x, dot.high) for dot in dots if dot.high is not None]
    lows = [(dot.x, dot.low) for dot in reversed(dots) if dot.low is not None]
    if len(dots) < 2 or len(highs) < len(dots) or len(lows) < len(dots):
        return ""
    return " ".join(f"{x},{y}" for x, y in (*highs, *lows))


def _interval(one: Summary) -> str:
    return "" if one.low is None or one.high is None else f"{figure(one.low)} to {figure(one.high)}"


def date_text(time: datetime) -> str:
    """A time in UTC, to the minute."""
    return f"{time.astimezone(UTC):%d %b %Y, %H:%M}".lstrip("0")

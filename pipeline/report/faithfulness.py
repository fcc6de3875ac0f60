"""The table of methods × metrics: which is best, and which is no better than chance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from pipeline.report.record import RunRecord
from pipeline.stages.comparison import Comparison
from pipeline.stages.summarise import Summary

Verdict = Literal["", "not clearly better than random", "worse than random"]


@dataclass(frozen=True, slots=True)
class Column:
    """One measure of one metric."""

    metric: str
    measure: str
    higher_is_better: bool

    @property
    def title(self) -> str:
        """The metric, and its measure where that has a name of its own."""
        return self.metric if self.measure == self.metric else f"{self.metric} {self.measure}"

    @property
    def direction(self) -> str:
        """Which way is better, as an arrow and in words."""
        return "↑ higher is better" if self.higher_is_better else "↓ lower is better"


@dataclass(frozen=True, slots=True)
class Span:
    """An interval drawn on a track, in per cent of the track's length."""

    left: float
    width: float
    mean: float
    control: float | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One method's measure.

    Attributes:
        summary: the figures; None where nothing was measured.
        best: whether its mean is the best of the methods, the control left out.
        verdict: how it fares against the random control; empty where it beats it, or there is none.
        span: the interval as drawn; None without a value.
    """

    summary: Summary | None
    best: bool
    verdict: Verdict
    span: Span | None

    @property
    def mean(self) -> str:
        """The mean, or that there is none."""
        if self.summary is None:
            return "not scored"
        return "no value" if self.summary.mean is None else figure(self.summary.mean)

    @property
    def interval(self) -> str:
        """The 95 % interval of the mean."""
        if self.summary is None or self.summary.low is None or self.summary.high is None:
            return ""
        return f"{figure(self.summary.low)} to {figure(self.summary.high)}"


@dataclass(frozen=True, slots=True)
class Row:
    """One method, with a cell a column."""

    method: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """One model's methods × measures.

    Attributes:
        model: whose.
        columns: the measures.
        rows: the methods, in the order of the spec, without the control.
        control: the random control's row, set apart; None where it was not run.
    """

    model: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    control: Row | None

    @property
    def heads(self) -> list[str]:
        """What stands over each column, on one line."""
        return [f"{one.title}, {one.direction}" for one in self.columns]


def faithfulness_tables(
    record: RunRecord,
    comparisons: Sequence[Comparison] = (),
    verdicts: Mapping[tuple[str, str, str, str], Verdict] = MappingProxyType({}),
) -> list[Table]:
    """A table for each model that has figures, in the order of the spec.

    Args:
        record: the run.
        comparisons: its paired differences; a method without one to the control is judged by its interval.
        verdicts: by model, metric, measure and method, what is known otherwise; it goes before both.
    """
    controls = {(one.model, one.metric, one.measure, one.first): one for one in comparisons if one.family == "control"}
    order = [*record.models, *(one.model for one in record.summary)]
    tables = (_table(model, record, controls, verdicts) for model in dict.fromkeys(order))
    return [table for table in tables if table.columns]


def verdict(method: Summary, control: Summary, comparison: Comparison | None = None) -> Verdict:
    """How a method fares against the random control.

    By their paired difference where it is known (`Comparison.better`); else it beats the control only where their
    intervals lie apart, for which both need one. Empty where it beats it, where either has no value, and where chance
    is no yardstick.
    """
    if not method.against_chance or method.mean is None or control.mean is None:
        return ""
    if comparison is not None:
        if comparison.better == method.method:
            return ""
        return "worse than random" if comparison.better else "not clearly better than random"
    if method.low is None or method.high is None or control.low is None or control.high is None:
        return "not clearly better than random"
    low, high, control_low, control_high = method.low, method.high, control.low, control.high
    if not method.higher_is_better:
        low, high, control_low, control_high = -high, -low, -control_high, -control_low
    if low > control_high:
        return ""
    return "worse than random" if high < control_low else "not clearly better than random"


def figure(value: float) -> str:
    """A measure in three decimals; in three digits where that would hide it."""
    size = abs(value)
    return f"{value:.3f}" if size == 0 or 0.001 <= size < 1000 else f"{value:.3g}"


def signed(value: float) -> str:
    """A difference, as `figure`, with its sign."""
    return figure(0.0) if value == 0 else f"{'+' if value > 0 else '−'}{figure(abs(value))}"


def _table(
    model: str,
    record: RunRecord,
    controls: Mapping[tuple[str, str, str, str], Comparison],
    verdicts: Mapping[tuple[str, str, str, str], Verdict],
) -> Table:
    found = {(one.method, one.metric, one.measure): one for one in record.summary if one.model == model}
    columns = tuple(dict.fromkeys(Column(one.metric, one.measure, one.higher_is_better) for one in found.values()))
    order = dict.fromkeys([*record.methods, *(method for method, _, _ in found)])
    methods = [method for method in order if any(key[0] == method for key in found)]
    cells: dict[str, list[Cell]] = {method: [] for method in methods}
    for column in columns:
        mine = {method: found.get((method, column.metric, column.measure)) for method in methods}
        control = mine.get(record.control or "")
        best = _best(column, (one for method, one in mine.items() if method != record.control))
        spans = _spans(mine, control)
        for method, summary in mine.items():
            # What is not told from chance is not called best either, and the control never is.
            said: Verdict = ""
            if summary is not None and control is not None and method != record.control:
                key = (model, column.metric, column.measure, method)
                said = verdicts[key] if key in verdicts else verdict(summary, control, controls.get(key))
            cells[method].append(
                Cell(
                    summary,
                    best=method != record.control
                    and best is not None
                    and summary is not None
                    and summary.mean == best
                    and not said,
                    verdict=said,
                    span=spans.get(method),
                )
            )
    rows = {method: Row(method, tuple(row)) for method, row in cells.items()}
    control_row = rows.pop(record.control, None) if record.control else None
    return Table(model, columns, tuple(rows.values()), control_row)


def _best(column: Column, summaries: Iterable[Summary | None]) -> float | None:
    means = [one.mean for one in summaries if one is not None and one.mean is not None]
    if len(means) < 2:
        return None
    return max(means) if column.higher_is_better else min(means)


def _spans(summaries: dict[str, Summary | None], control: Summary | None) -> dict[str, Span]:
    """Intervals on one track, which reaches from the lowest end to the highest of the column."""
    known = {
        method: (one.low, one.mean, one.high)
        for method, one in summaries.items()
        if one is not None and one.mean is not None and one.low is not None and one.high is not None
    }
    if not known:
        return {}
    bottom, top = min(low for low, _, _ in known.values()), max(high for _, _, high in known.values())
    length = (top - bottom) or 1.0

    def place(value: float) -> float:
        return round(100 * (value - bottom) / length, 2)

    random = place(control.mean) if control is not None and control.mean is not None else None
    return {
        method: Span(place(low), max(round(place(high) - place(low), 2), 0.5), place(mean), random)
        for method, (low, mean, high) in known.items()
    }

"""Which methods the samples tell apart: from the best, from the random control, and from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.report.faithfulness import Column, figure, signed
from pipeline.report.record import RunRecord
from pipeline.stages.comparison import Comparison
from pipeline.stages.summarise import Summary

Said = Literal["better", "worse", "not told apart"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A method's difference to another one, as text.

    Attributes:
        mean: mean difference with its sign; `–` where no sample has both values, as in all that follows.
        interval: its 95 % interval.
        share: of the samples, on how many the method is the better, in per cent.
        p: after correction.
        n: samples that both have.
        said: what may be said of the method.
    """

    mean: str
    interval: str
    share: str
    p: str
    n: int
    said: Said


@dataclass(frozen=True, slots=True)
class ContrastRow:
    """One method by one measure.

    Attributes:
        method: its id.
        mean: its mean over all its samples.
        to_best, to_control: differences; None for the best, or the control, itself and where there is none.
        against: to each method of the contrast in order; None to itself.
    """

    method: str
    mean: str
    to_best: Difference | None
    to_control: Difference | None
    against: tuple[Difference | None, ...]


@dataclass(frozen=True, slots=True)
class Contrast:
    """The methods of one model by one measure.

    Attributes:
        column: the measure.
        best: the method with the best mean, the control left out; None with fewer than two methods.
        tied: methods not clearly worse than the best, best mean first.
        chance: methods not clearly better than the control; None where it is no yardstick, or was not run.
        rows: the methods, best mean first, the control last.
    """

    column: Column
    best: ContrastRow | None
    tied: tuple[str, ...]
    chance: tuple[str, ...] | None
    rows: tuple[ContrastRow, ...]


@dataclass(frozen=True, slots=True)
class ContrastTable:
    """The contrasts of one model."""

    model: str
    contrasts: tuple[Contrast, ...]

    @property
    def controlled(self) -> bool:
        """Whether there is a control to compare with."""
        return any(one.chance is not None for one in self.contrasts)


def contrast_tables(record: RunRecord, comparisons: Sequence[Comparison]) -> list[ContrastTable]:
    """A table for each model that has comparisons, in the order of the spec."""
    groups: dict[tuple[str, str, str], list[Comparison]] = {}
    for one in comparisons:
        groups.setdefault((one.model, one.metric, one.measure), []).append(one)
    tables = []
    for model in dict.fromkeys([*record.models, *(model for model, _, _ in groups)]):
        found = [_contrast(record, key, group) for key, group in groups.items() if key[0] == model]
        if found:
            tables.append(ContrastTable(model, tuple(found)))
    return tables


def p_text(p: float | None) -> str:
    """A p value: `< 0.001`, or three decimals; `–` for none."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _contrast(record: RunRecord, key: tuple[str, str, str], comparisons: Sequence[Comparison]) -> Contrast:
    pairs = {frozenset((one.first, one.second)): one for one in comparisons}
    there = {method for pair in pairs for method in pair}
    summaries = [one for one in record.summary if (one.model, one.metric, one.measure) == key and one.method in there]
    summaries.sort(key=lambda one: _order(one, record.control))
    methods = [one.method for one in summaries]
    own = [one.method for one in summaries if one.method != record.control and one.mean is not None]
    best = own[0] if len(own) > 1 else None

    def difference(method: str, other: str | None) -> Difference | None:
        found = pairs.get(frozenset((method, other))) if other is not None and other != method else None
        return None if found is None else _difference(found.seen_from(method))

    rows = {
        one.method: ContrastRow(
            method=one.method,
            mean="no value" if one.mean is None else figure(one.mean),
            to_best=difference(one.method, best),
            to_control=difference(one.method, record.control),
            against=tuple(difference(one.method, other) for other in methods),
        )
        for one in summaries
    }
    yardstick = record.control in there and all(one.against_chance for one in summaries)
    return Contrast(
        column=Column(key[1], key[2], comparisons[0].higher_is_better),
        best=rows[best] if best is not None else None,
        tied=tuple(method for method in own if (found := rows[method].to_best) is not None and found.said != "worse"),
        chance=tuple(
            method for method in own if (found := rows[method].to_control) is not None and found.said != "better"
        )
        if yardstick
        else None,
        rows=tuple(rows.values()),
    )


def _order(summary: Summary, control: str | None) -> tuple[bool, bool, float]:
    mean = summary.mean or 0.0
    return summary.method == control, summary.mean is None, -mean if summary.higher_is_better else mean


def _difference(one: Comparison) -> Difference:
    if one.difference is None or one.low is None or one.high is None or one.share is None:
        return Difference("–", "", "–", "–", one.n, "not told apart")
    said: Said = "not told apart" if one.better is None else "better" if one.better == one.first else "worse"
    return Difference(
        mean=signed(one.difference),
        interval=f"{signed(one.low)} to {signed(one.high)}",
        share=f"{100 * one.share:.0f}",
        p=p_text(one.corrected),
        n=one.n,
        said=said,
    )

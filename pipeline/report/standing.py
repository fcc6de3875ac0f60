"""The rank table, and how far metrics agree, as the page shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.faithfulness import Column
from pipeline.report.record import RunRecord
from pipeline.stages.agreement import Agreement
from pipeline.stages.ranking import Rank


@dataclass(frozen=True, slots=True)
class RankCell:
    """A method's rank by one measure.

    Attributes:
        rank: by its mean; `–` for none.
        sample_rank: mean rank over samples; empty for none.
        first: whether none is better, the control left out.
        tint: how near to the best, from 0 for the last to 1 for the first.
    """

    rank: str
    sample_rank: str
    first: bool
    tint: float


@dataclass(frozen=True, slots=True)
class RankRow:
    """A method, its mean rank (`–` for none) and a cell a measure."""

    method: str
    control: bool
    mean_rank: str
    cells: tuple[RankCell, ...]


@dataclass(frozen=True, slots=True)
class RankTable:
    """The ranks of one model's methods.

    Attributes:
        model: whose.
        columns: the measures.
        rows: the methods, best mean rank first; where there is none, in the order of the spec.
        averaged: whether there is a mean over several measures.
    """

    model: str
    columns: tuple[Column, ...]
    rows: tuple[RankRow, ...]
    averaged: bool


@dataclass(frozen=True, slots=True)
class AgreementCell:
    """Two measures' agreement: rank correlation of means and mean one by sample, `–` for none.

    Attributes:
        means, samples: the correlations, with their sign.
        methods, n: over how many methods and samples.
        tint: of the means, from −1 to 1.
    """

    means: str
    samples: str
    methods: int
    n: int
    tint: float


@dataclass(frozen=True, slots=True)
class AgreementTable:
    """A square of measures; a cell is None on the diagonal and where methods are too few."""

    model: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[AgreementCell | None, ...], ...]


def rank_tables(record: RunRecord, ranks: Sequence[Rank]) -> list[RankTable]:
    """A table for each model with two methods or more, in the order of the spec."""
    tables = []
    for model in dict.fromkeys([*record.models, *(one.model for one in ranks)]):
        mine = {(one.method, one.metric, one.measure): one for one in ranks if one.model == model}
        methods = list(dict.fromkeys(one.method for one in mine.values()))
        if len(methods) > 1:
            tables.append(_rank_table(model, _columns(record, model), methods, mine))
    return tables


def agreement_tables(record: RunRecord, agreement: Sequence[Agreement]) -> list[AgreementTable]:
    """A table for each model whose measures could be compared, in the order of the spec."""
    tables = []
    for model in dict.fromkeys([*record.models, *(one.model for one in agreement)]):
        pairs = {
            frozenset(((one.first_metric, one.first_measure), (one.second_metric, one.second_measure))): one
            for one in agreement
            if one.model == model
        }
        named = {name for pair in pairs for name in pair}
        columns = tuple(one for one in _columns(record, model) if (one.metric, one.measure) in named)
        rows = tuple(
            tuple(
                _agreement_cell(pairs.get(frozenset(((row.metric, row.measure), (column.metric, column.measure)))))
                for column in columns
            )
            for row in columns
        )
        if columns:
            tables.append(AgreementTable(model, columns, rows))
    return tables


def _columns(record: RunRecord, model: str) -> tuple[Column, ...]:
    return tuple(
        dict.fromkeys(
            Column(one.metric, one.measure, one.higher_is_better) for one in record.summary if one.model == model
        )
    )


def _rank_table(
    model: str, columns: tuple[Column, ...], methods: Sequence[str], ranks: dict[tuple[str, str, str], Rank]
) -> RankTable:
    rows = {}
    for method in methods:
        mine = [ranks.get((method, column.metric, column.measure)) for column in columns]
        first = next(one for one in mine if one is not None)
        cells = tuple(_rank_cell(one, _leading(ranks, column)) for one, column in zip(mine, columns, strict=True))
        mean = float("inf") if first.mean_rank is None else first.mean_rank
        rows[method] = (mean, RankRow(method, first.control, _rank_text(first.mean_rank, 1), cells))
    averaged = len(columns) > 1 and any(row.mean_rank != "–" for _, row in rows.values())
    ordered = sorted(rows.values(), key=lambda one: one[0])
    return RankTable(model, columns, tuple(row for _, row in ordered), averaged)


def _leading(ranks: dict[tuple[str, str, str], Rank], column: Column) -> float | None:
    """The best rank in a column, the control left out."""
    known = [
        one.rank
        for (_, metric, measure), one in ranks.items()
        if (metric, measure) == (column.metric, column.measure) and one.rank is not None and not one.control
    ]
    return min(known, default=None)


def _rank_cell(one: Rank | None, leading: float | None) -> RankCell:
    if one is None or one.rank is None:
        return RankCell("–", "", False, 0.0)
    tint = (one.among - one.rank) / (one.among - 1) if one.among > 1 else 0.0
    sample_rank = "" if one.sample_rank is None else _rank_text(one.sample_rank, 1)
    return RankCell(_rank_text(one.rank), sample_rank, one.rank == leading and not one.control, round(tint, 3))


def _rank_text(rank: float | None, decimals: int = 0) -> str:
    """A rank; of means there are halves."""
    if rank is None:
        return "–"
    return f"{rank:.{decimals}f}" if decimals or rank == int(rank) else f"{rank:.1f}"


def _agreement_cell(one: Agreement | None) -> AgreementCell | None:
    if one is None:
        return None
    return AgreementCell(
        means=_correlation(one.spearman),
        samples=_correlation(one.sample_spearman),
        methods=one.methods,
        n=one.samples,
        tint=round(one.spearman or 0.0, 3),
    )


def _correlation(value: float | None) -> str:
    if value is None:
        return "–"
    text = f"{abs(value):.2f}"
    return f"−{text}" if value < 0 and text != "0.00" else text

"""The figures of the page as Markdown, for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.report.contrast import Contrast, ContrastTable, p_text
from pipeline.report.faithfulness import Column, Row, Table, figure, signed
from pipeline.report.standing import AgreementTable, RankTable
from pipeline.stages.comparison import Comparison

_CLEAR = (
    "Clearly better: Wilcoxon's signed-rank test with Holm's correction has p < 0.05, the 95 % interval of the mean "
    "difference leaves out 0, and most samples agree."
)


def summary_markdown(
    title: str,
    tables: Iterable[Table],
    contrasts: Sequence[ContrastTable] = (),
    ranks: Sequence[RankTable] = (),
    agreement: Sequence[AgreementTable] = (),
) -> str:
    """Tables a model: mean [95 % interval], the best of a column in bold; then differences, ranks and agreement."""
    lines = [f"# {_plain(title)}", ""]
    for table in tables:
        lines += [f"## {_plain(table.model)}", ""]
        rows = (*table.rows, *([table.control] if table.control else []))
        lines += [*_grid(["method", *table.heads], (_row(row) for row in rows)), ""]
    lines.append("Mean over samples [95 % bootstrap interval] (samples); the best of each column is bold.")
    if contrasts:
        lines += ["", "## Differences", "", _CLEAR]
    for one in contrasts:
        lines += ["", f"### {_plain(one.model)}", "", *_contrast_grid(one)]
    if ranks:
        lines += ["", "## Ranks", "", "By the mean, 1 is best; in brackets the mean rank over samples."]
    for rank in ranks:
        lines += ["", f"### {_plain(rank.model)}", "", *_rank_grid(rank)]
    if agreement:
        lines += ["", "## Agreement of metrics", ""]
        lines.append("Spearman's rank correlation of the methods' means; in brackets the mean one over samples.")
    for square in agreement:
        lines += ["", f"### {_plain(square.model)}", "", *_agreement_grid(square)]
    return "\n".join(lines) + "\n"


def comparisons_markdown(title: str, comparisons: Iterable[Comparison]) -> str:
    """Every pair of methods, a table a model and measure."""
    lines = [f"# {_plain(title)}: differences", "", _CLEAR]
    groups: dict[tuple[str, Column], list[Comparison]] = {}
    for one in comparisons:
        column = Column(one.metric, one.measure, one.higher_is_better)
        groups.setdefault((one.model, column), []).append(one)
    heads = ["first", "second", "n", "first − second", "95 % interval", "first better on", "p", "p (Holm)", "better"]
    for (model, column), group in groups.items():
        lines += ["", f"## {_plain(model)}: {_plain(column.title)}, {column.direction}", ""]
        lines += _grid(heads, (_comparison(one) for one in group))
    return "\n".join(lines) + "\n"


def _comparison(one: Comparison) -> list[str]:
    cells = [_plain(one.first), _plain(one.second), str(one.n)]
    if one.difference is None or one.low is None or one.high is None or one.share is None:
        return [*cells, "–", "–", "–", "–", "–", ""]
    return [
        *cells,
        signed(one.difference),
        f"{signed(one.low)} to {signed(one.high)}",
        f"{100 * one.share:.0f} %",
        p_text(one.p),
        p_text(one.corrected),
        _plain(one.better or ""),
    ]


def _contrast_grid(table: ContrastTable) -> list[str]:
    heads = ["measure", "best mean", "not clearly worse"]
    heads += ["not clearly better than random"] if table.controlled else []

    def cells(one: Contrast) -> list[str]:
        best = "–" if one.best is None else f"{_plain(one.best.method)} ({one.best.mean})"
        found = [_plain(f"{one.column.title}, {one.column.direction}"), best, _names(one.tied)]
        return [*found, "–" if one.chance is None else _names(one.chance)] if table.controlled else found

    return _grid(heads, map(cells, table.contrasts))


def _rank_grid(table: RankTable) -> list[str]:
    rows = []
    for row in table.rows:
        cells = [_plain(row.method) + (" (control)" if row.control else "")]
        cells += [row.mean_rank] if table.averaged else []
        cells += [f"{cell.rank} ({cell.sample_rank})" if cell.sample_rank else cell.rank for cell in row.cells]
        rows.append(cells)
    heads = ["method", *(["mean rank"] if table.averaged else []), *(column.title for column in table.columns)]
    return _grid(heads, rows)


def _agreement_grid(table: AgreementTable) -> list[str]:
    rows = [
        [_plain(column.title), *("" if cell is None else f"{cell.means} ({cell.samples})" for cell in row)]
        for column, row in zip(table.columns, table.rows, strict=True)
    ]
    return _grid(["", *(column.title for column in table.columns)], rows)


def _row(row: Row) -> list[str]:
    cells = [_plain(row.method)]
    for cell in row.cells:
        one = cell.summary
        if one is None or one.mean is None or one.low is None or one.high is None:
            cells.append("no value")
            continue
        mean = f"**{cell.mean}**" if cell.best else cell.mean
        note = f", {cell.verdict}" if cell.verdict else ""
        cells.append(f"{mean} [{figure(one.low)}, {figure(one.high)}] ({one.n}{note})")
    return cells


def _names(methods: Sequence[str]) -> str:
    return ", ".join(map(_plain, methods)) or "none"


def _grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_line(_plain(head) for head in heads), _line("---" for _ in heads), *map(_line, rows)]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _plain(text: str) -> str:
    """Text that stays text inside a Markdown table."""
    for sign in "\\`*_[]<>|":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())

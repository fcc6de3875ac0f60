"""The figures of the page as Markdown, for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.report.contrast import Contrast, ContrastTable, p_text
from pipeline.report.faithfulness import Column, Row, Table, figure, signed
from pipeline.report.retraining import RetrainCell, RetrainTable, Training
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
    retrain: Sequence[RetrainTable] = (),
    training: Training | None = None,
) -> str:
    """Tables a model: mean [95 % interval], the best of a column in bold; differences, ranks, agreement; retraining."""
    lines = [f"# {_plain(title)}", ""]
    for table in tables:
        lines += [f"## {_plain(table.model)}", ""]
        rows = (*table.rows, *([table.control] if table.control else []))
        lines += [*_grid(["method", *table.heads], (_row(row) for row in rows)), ""]
    lines.append("Mean over samples [95 % bootstrap interval] (samples); the best of each column is bold.")
    if retrain:
        lines.append("Of retrained networks: mean over repeats [95 % interval, Student's t] (repeats).")
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
    if training is not None:
        lines += ["", f"## {training.title}", "", *_training(training)]
    for table_ in retrain:
        lines += ["", f"### {_plain(table_.network)}, maps of {_plain(table_.model)}", "", *_retrain_grid(table_)]
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


def _training(one: Training) -> list[str]:
    lines = [
        f"Accuracy on masked test images in per cent, ± half its 95 % interval over repeats (Student's t), by the "
        f"share of pixels {'kept' if one.kind == 'kar' else 'removed'}, most relevant first. The area is the mean "
        "height of the curve. Gain: by how much the area is better than random's, repeat by repeat; clear where its "
        "interval leaves out 0, which speaks of other trainings on the same images and maps, and is not corrected for "
        "the number of methods."
    ]
    if one.missing:
        names = ", ".join(f"{_plain(arm)} {lacking} of {count}" for arm, lacking, count in one.missing)
        lines += ["", f"{one.planned - one.trained} of {one.planned} trainings are missing: {names}."]
    if one.conditions.uneven:
        lines += ["", "Not all networks were trained and tested on the same number of images: no fair comparison."]
    if one.conditions.unranked:
        names = ", ".join(f"{_plain(method)} {count}" for method, count in one.conditions.unranked.items())
        lines += ["", f"Images masked at random, since their map failed or is the same everywhere: {names}."]
    if one.conditions.sentences:
        lines += ["", f"{'; '.join(map(_plain, one.conditions.sentences))}."]
    return lines


def _retrain_grid(table: RetrainTable) -> list[str]:
    def cell(one: RetrainCell | None) -> str:
        if one is None:
            return "–"
        text = f"**{one.accuracy}**" if one.best else str(one.accuracy)
        return f"{text} ({one.accuracy.n})" if one.short else text

    rows = [["clean", *[str(table.clean or "–")] * (len(table.heads) + 1), "", ""]]
    for row in table.all_rows:
        gain = row.area.gain if row.area else None
        standing = row.area.standing if row.area else None
        cells = [cell(one) for one in (*row.cells, row.area)]
        rows.append([_plain(row.method), *cells, str(gain or ""), standing or ""])
    lines = _grid(["method", *table.heads, f"area, {table.better}", "gain over random", "against random"], rows)
    return [*lines, "", table.note] if table.note else lines


def _row(row: Row) -> list[str]:
    cells = [_plain(row.method)]
    for cell in row.cells:
        one = cell.summary
        if one is None or one.mean is None:
            cells.append(cell.mean)
            continue
        mean = f"**{cell.mean}**" if cell.best else cell.mean
        note = f", {cell.verdict}" if cell.verdict else ""
        ends = "" if one.low is None or one.high is None else f" [{figure(one.low)}, {figure(one.high)}]"
        cells.append(f"{mean}{ends} ({one.n}{note})")
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

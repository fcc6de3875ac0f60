"""The page: one HTML file that holds everything it shows."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.data import Dataset
from pipeline.errors import FatalError, RetryableError, ShardError
from pipeline.report.contrast import contrast_tables
from pipeline.report.cost import method_costs, metric_costs
from pipeline.report.curve_plot import curve_plots
from pipeline.report.fact import (
    facts_line,
    failures,
    model_facts,
    no_figures_note,
    selection_note,
    status_note,
)
from pipeline.report.faithfulness import faithfulness_tables
from pipeline.report.figure_table import arrow_file, csv_file, figure_tables, retrain_figure_tables
from pipeline.report.finding import Findings, find
from pipeline.report.gallery import GalleryRow, gallery
from pipeline.report.heatmap import colour_stops
from pipeline.report.markdown import comparisons_markdown, summary_markdown
from pipeline.report.masked_gallery import MaskedSample, masked_gallery
from pipeline.report.palette import palette
from pipeline.report.record import RunRecord, read_record
from pipeline.report.retrain_plot import retrain_plots
from pipeline.report.retraining import controls, retrain_tables, retrain_verdicts, training
from pipeline.report.standing import agreement_tables, rank_tables
from pipeline.report.template import style_sheet, template
from pipeline.retrain.grid import Grid, read_grid
from pipeline.retrain.summary import READINGS, Benchmark, benchmarks
from pipeline.store import Output


def build_report(output: Output, run: str | None = None, *, dataset: Dataset, samples: int) -> str:
    """Write the page of a run, and its figures as Arrow, CSV and Markdown.

    Writes `report/<run>/index.html`; beside it `summary`, `comparisons`, `ranks` and `agreement`, and of a run that
    retrains `retrain` and `retrain_summary`, as `.arrow` and `.csv`, `summary.md` with all but single comparisons, and
    `comparisons.md`; and `report/index.html`, the same page, when the run is the latest. The same committed data give
    the same bytes.

    Args:
        output: where the run is.
        run: one of `output.runs()`; default: the latest.
        dataset: the run's images; `run_dataset` opens them.
        samples: images in the gallery, at most.

    Returns:
        Name of the page under the output.

    Raises:
        FatalError: there is no such run, or the output cannot be written.
    """
    latest = output.runs()[-1:]
    record = read_record(output, run)
    findings = find(output, record)
    grid = read_grid(output, record.variants)
    retrained = benchmarks(grid.cells, controls(record))
    views = _views(record, findings, retrained)
    views["training"], views["retrain_tables"] = training(record, grid), retrain_tables(retrained, grid)
    tables = figure_tables(record, findings)
    if views["training"]:
        tables |= retrain_figure_tables(record, grid, retrained)
    texts, arrow = _figures(record, findings, views, tables)
    colours = palette(record.methods, record.control)
    masked, no_masked = _masked(output, record, dataset, retrained, grid) if samples else ([], "")
    rows, unreadable = _gallery(output, record, dataset, samples)
    page = (
        template("page.html.j2")
        .render(
            record=record,
            title=record.name,
            style=style_sheet(),
            facts=facts_line(record, dataset),
            models=model_facts(output, record),
            status=status_note(record),
            no_figures=no_figures_note(record),
            selection=selection_note(record),
            readings=_readings(record),
            **views,
            plots=curve_plots(record, colours),
            retrain_plots=retrain_plots(retrained, colours),
            samples=samples,
            masked=masked,
            no_masked=no_masked,
            series=colours,
            gallery=rows,
            gallery_problem=unreadable,
            heat=colour_stops(),
            failures=failures(output, record),
            method_costs=method_costs(record),
            metric_costs=metric_costs(record),
            spec=json.dumps(record.spec, indent=2, ensure_ascii=False),
            profile=json.dumps(record.profile, indent=2, ensure_ascii=False),
            # Comparisons are as large as pictures, and the page shows them.
            files={name: _download(name, text) for name, text in texts.items() if not name.startswith("comparisons")},
        )
        .encode()
    )
    folder = f"report/{record.run}"
    for name, text in texts.items():
        output.write_bytes(f"{folder}/{name}", text.encode())
    for name, buffer in arrow.items():
        output.write_bytes(f"{folder}/{name}", buffer)
    output.write_bytes(f"{folder}/index.html", page)
    if record.run in latest:
        output.write_bytes("report/index.html", page)
    return f"{folder}/index.html"


def _views(record: RunRecord, findings: Findings, retrained: Sequence[Benchmark]) -> dict[str, Any]:
    """What the page and the Markdown show of the scores."""
    return {
        "tables": faithfulness_tables(record, findings.comparisons, retrain_verdicts(retrained)),
        "paired": any(one.family == "control" for one in findings.comparisons),
        # Retraining has a random arm also where the other measures have no control.
        "controlled": any(one.method == record.control and one.over == "samples" for one in record.summary),
        "scored": any(one.over == "samples" for one in record.summary),
        "contrasts": contrast_tables(record, findings.comparisons),
        "ranks": rank_tables(record, findings.ranks),
        "agreement": agreement_tables(record, findings.agreement),
    }


def _figures(
    record: RunRecord, findings: Findings, views: Mapping[str, Any], tables: Mapping[str, pa.Table]
) -> tuple[dict[str, str], dict[str, pa.Buffer]]:
    """The figures as files, by name: text, and Arrow."""
    texts = {f"{name}.csv": csv_file(table) for name, table in tables.items()}
    texts["summary.md"] = summary_markdown(
        record.name,
        views["tables"],
        views["contrasts"],
        views["ranks"],
        views["agreement"],
        views["retrain_tables"],
        views["training"],
    )
    texts["comparisons.md"] = comparisons_markdown(record.name, findings.comparisons)
    return texts, {f"{name}.arrow": arrow_file(table) for name, table in tables.items()}


def _gallery(output: Output, record: RunRecord, dataset: Dataset, samples: int) -> tuple[list[GalleryRow], str]:
    """The gallery, or why there is none: figures of hours shall not wait for images that have moved."""
    try:
        return gallery(output, record, dataset, samples), ""
    except (FatalError, RetryableError, ShardError) as error:
        return [], str(error)


def _masked(
    output: Output, record: RunRecord, dataset: Dataset, retrained: Sequence[Benchmark], grid: Grid
) -> tuple[list[MaskedSample], str]:
    """Masked images of the first benchmark, or why there are none."""
    try:
        return (masked_gallery(output, record, dataset, retrained[0], grid) if retrained else []), ""
    except (FatalError, RetryableError, ShardError) as error:
        return [], str(error)


def _readings(record: RunRecord) -> dict[str, str]:
    """How to read the figures of each metric that has some."""
    readings = dict(record.readings)
    for one in record.summary:
        if one.over == "repeats" and one.metric in READINGS:
            readings[one.metric] = READINGS[one.metric]
    metrics = dict.fromkeys(one.metric for one in record.summary)
    return {metric: readings[metric] for metric in metrics if metric in readings}


def _download(name: str, text: str) -> str:
    kind = "text/csv" if name.endswith(".csv") else "text/markdown"
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"

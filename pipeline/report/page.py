"""The page: one HTML file that holds everything it shows."""

from __future__ import annotations

import base64
import json
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pipeline.data import Dataset
from pipeline.errors import FatalError, RetryableError
from pipeline.report.cost import duration, method_costs, metric_costs
from pipeline.report.curve_plot import curve_plots
from pipeline.report.fact import (
    facts_line,
    failures,
    model_facts,
    no_figures_note,
    reading,
    selection_note,
    status_note,
)
from pipeline.report.faithfulness import faithfulness_tables
from pipeline.report.figure_file import summary_csv, summary_markdown
from pipeline.report.gallery import GalleryRow, gallery
from pipeline.report.heatmap import colour_stops
from pipeline.report.palette import palette
from pipeline.report.record import RunRecord, read_record
from pipeline.store import Output


def build_report(output: Output, run: str | None = None, *, dataset: Dataset, samples: int) -> str:
    """Write the page of a run, and its figures as CSV and Markdown.

    Writes `report/<run>/index.html`, `summary.csv` and `summary.md`; and `report/index.html`, the same page,
    when the run is the latest. The same committed data give the same bytes.

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
    tables = faithfulness_tables(record)
    figures, markdown = summary_csv(record.summary), summary_markdown(record.name, tables)
    colours = palette(record.methods, record.control)
    rows, unreadable = _gallery(output, record, dataset, samples)
    page = (
        _template()
        .render(
            record=record,
            style=Markup(_resource("page.css")),
            facts=facts_line(record, dataset),
            models=model_facts(output, record),
            status=status_note(record),
            no_figures=no_figures_note(record),
            selection=selection_note(record),
            reading=reading(record),
            tables=tables,
            plots=curve_plots(record, colours),
            series=colours,
            gallery=rows,
            gallery_problem=unreadable,
            heat=colour_stops(),
            failures=failures(output, record),
            method_costs=method_costs(record),
            metric_costs=metric_costs(record),
            spec=json.dumps(record.spec, indent=2, ensure_ascii=False),
            profile=json.dumps(record.profile, indent=2, ensure_ascii=False),
            csv=_download("text/csv", figures),
            markdown=_download("text/markdown", markdown),
        )
        .encode()
    )
    folder = f"report/{record.run}"
    output.write_bytes(f"{folder}/summary.csv", figures.encode())
    output.write_bytes(f"{folder}/summary.md", markdown.encode())
    output.write_bytes(f"{folder}/index.html", page)
    if record.run in latest:
        output.write_bytes("report/index.html", page)
    return f"{folder}/index.html"


def _gallery(output: Output, record: RunRecord, dataset: Dataset, samples: int) -> tuple[list[GalleryRow], str]:
    """The gallery, or why there is none: figures of hours shall not wait for images that have moved."""
    try:
        return gallery(output, record, dataset, samples), ""
    except (FatalError, RetryableError) as error:
        return [], str(error)


def _download(kind: str, text: str) -> str:
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"


@cache
def _template() -> Any:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["duration"] = duration
    environment.filters["breakable"] = _breakable
    return environment.from_string(_resource("page.html.j2"))


def _breakable(name: str) -> Markup:
    """A name that may be broken after its underscores."""
    return Markup("_<wbr>").join(name.split("_"))


def _resource(name: str) -> str:
    return resources.files("pipeline.report").joinpath(name).read_text(encoding="utf-8")

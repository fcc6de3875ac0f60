"""Mean perturbation curves as inline SVG that takes its colours and fonts from the page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pipeline.report.palette import Series
from pipeline.report.record import RunRecord
from pipeline.stages.summarise import Summary

# Matplotlib wants colours of its own kind; these stand for the page's and are replaced in its SVG.
_INK, _MUTED, _GRID = "#010203", "#040506", "#070809"
_PAGE_COLOURS = {_INK: "var(--ink)", _MUTED: "var(--muted)", _GRID: "var(--rule)"}
# The curve's vertical axis for the metrics whose curve is the probability of the class explained.
_PROBABILITY = ("deletion", "insertion")


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """A line of a plot's legend."""

    series: Series
    mean: str


@dataclass(frozen=True, slots=True)
class Plot:
    """Mean curves of the methods for one model, metric and measure.

    Attributes:
        model, metric: whose.
        direction: which way is better, in words.
        description: what a reader who does not see it is told.
        svg: the drawing, an `<svg>` element; holds no text that comes from data.
        legend: the methods, best mean first.
    """

    model: str
    metric: str
    direction: str
    description: str
    svg: str
    legend: tuple[LegendEntry, ...]


def curve_plots(record: RunRecord, colours: Mapping[str, Series]) -> list[Plot]:
    """One plot a model and metric that has curves, in the order of the spec."""
    groups: dict[tuple[str, str], list[Summary]] = {}
    for summary in record.summary:
        if summary.curve and len(summary.curve) == len(summary.fractions) and summary.method in colours:
            groups.setdefault((summary.model, summary.metric), []).append(summary)
    return [
        _plot(f"plot-{number}", found, colours, record.programs)
        for number, found in enumerate(groups.values(), start=1)
    ]


def _plot(name: str, summaries: list[Summary], colours: Mapping[str, Series], programs: Mapping[str, str]) -> Plot:
    model, metric = summaries[0].model, summaries[0].metric
    higher = summaries[0].higher_is_better
    ranked = sorted(summaries, key=lambda one: (one.mean is None, (one.mean or 0) * (-1 if higher else 1)))
    ends = ", ".join(f"{one.method} {one.mean:.3f}" for one in ranked if one.mean is not None)
    probability = programs.get(metric, metric) in _PROBABILITY
    return Plot(
        model=model,
        metric=metric,
        direction="higher is better" if higher else "lower is better",
        description=f"Mean {metric} curve of each method on {model}; means, best first: {ends}",
        svg=curve_svg(
            [(one.fractions, one.curve, colours[one.method]) for one in reversed(ranked)],
            name=name,
            vertical="probability of the class" if probability else "mean score",
        ),
        legend=tuple(
            LegendEntry(colours[one.method], "no value" if one.mean is None else f"{one.mean:.3f}") for one in ranked
        ),
    )


def curve_svg(curves: Sequence[tuple[Sequence[float], Sequence[float], Series]], *, name: str, vertical: str) -> str:
    """Draw curves.

    Args:
        curves: for each, shares of pixels changed in [0, 1], values, how it is drawn; the last lies on top.
        name: put before the ids inside, so that two drawings on one page share none; letters, digits and `-`.
        vertical: what the vertical axis shows.

    Returns:
        An `<svg>` element without fixed size, the same bytes for the same input. Its colours are the page's
        variables `--ink`, `--muted`, `--rule` and each series's.
    """
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 11}):
        figure = Figure(figsize=(5.2, 3.3), layout="constrained")
        canvas = FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        figure.patch.set_alpha(0)
        axes.patch.set_alpha(0)
        for fractions, values, series in curves:
            style = (0, tuple(length / 1.8 for length in series.dash)) if series.dash else "solid"
            axes.plot(
                [100 * share for share in fractions],
                values,
                color=series.light,
                linestyle=style,
                linewidth=1.8,
            )
        axes.set_xlim(0, 100)
        axes.set_ylim(bottom=min(0.0, *(min(values) for _, values, _ in curves)))
        axes.set_xlabel("pixels changed, most relevant first (%)", color=_MUTED)
        axes.set_ylabel(vertical, color=_MUTED)
        axes.tick_params(colors=_MUTED, length=3)
        axes.grid(color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_MUTED)
        sink = io.StringIO()
        canvas.print_svg(  # type: ignore[no-untyped-call]
            sink, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    return _for_page(sink.getvalue(), {series.light: f"var(--{series.name})" for _, _, series in curves}, name)


def _for_page(document: str, colours: Mapping[str, str], name: str) -> str:
    """The `<svg>` element out of matplotlib's document, with the page's colours and ids of its own."""
    svg = document[document.index("<svg") :]
    # A style element inside the drawing would hold for the whole page.
    svg = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)
    for colour, variable in {**_PAGE_COLOURS, **colours}.items():
        svg = svg.replace(colour, variable)
    referred = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))

    def renamed(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in referred else ""

    svg = re.sub(r' id="([^"]+)"', renamed, svg)
    svg = re.sub(r'(url\(#|href="#)([^")]+)', rf"\g<1>{name}-\g<2>", svg)
    # Matplotlib names fonts of its own; the page's font is inherited where none is named.
    svg = re.sub(r"font-family: [^;]*; ", "", svg)
    return re.sub(r"\s*\n\s*", " ", svg.replace("xlink:href", "href")).strip()

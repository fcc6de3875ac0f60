"""Mean perturbation curves as inline SVG that takes its colours and fonts from the page."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pipeline.report.faithfulness import Column, figure
from pipeline.report.palette import Series
from pipeline.report.record import RunRecord
from pipeline.stages.summarise import Summary

# Matplotlib wants colours of its own kind; these stand for the page's and are replaced in its SVG.
INK, _MUTED, _GRID = "#010203", "#040506", "#070809"
_PAGE_COLOURS = {INK: "var(--ink)", _MUTED: "var(--muted)", _GRID: "var(--rule)"}
# Names on the horizontal axis: how many are written, how long, and how many letters stand side by side.
_MOST_NAMES, _LONGEST_NAME, _LEVEL_LETTERS = 16, 20, 50
# Points.
_LINE, MARKER = 1.8, 3.5
# Letters that an axis' title has room for on a line.
_ACROSS, _UP = 54, 32


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """A line of a plot's legend."""

    series: Series
    mean: str


@dataclass(frozen=True, slots=True)
class Plot:
    """Mean curves of the methods for one model, metric and measure.

    Attributes:
        model, column: whose.
        description: what a reader who does not see it is told.
        svg: the drawing, an `<svg>` element; its only text from data are the axes' titles and names, escaped.
        legend: the methods, best mean first.
    """

    model: str
    column: Column
    description: str
    svg: str
    legend: tuple[LegendEntry, ...]


def curve_plots(record: RunRecord, colours: Mapping[str, Series]) -> list[Plot]:
    """One plot a model and measure that has curves over samples, in the order of the spec."""
    groups: dict[tuple[str, Column], list[Summary]] = {}
    for summary in record.summary:
        drawn = summary.over == "samples" and summary.method in colours
        if drawn and summary.curve and len(summary.curve) == len(summary.axis):
            column = Column(summary.metric, summary.measure, summary.higher_is_better)
            groups.setdefault((summary.model, column), []).append(summary)
    return [
        _plot(f"plot-{number}", model, column, found, colours)
        for number, ((model, column), found) in enumerate(groups.items(), start=1)
    ]


def _plot(name: str, model: str, column: Column, summaries: list[Summary], colours: Mapping[str, Series]) -> Plot:
    sign = -1 if column.higher_is_better else 1
    ranked = sorted(summaries, key=lambda one: (one.mean is None, sign * (one.mean or 0)))
    ends = ", ".join(f"{one.method} {figure(one.mean)}" for one in ranked if one.mean is not None)
    return Plot(
        model=model,
        column=column,
        description=f"Mean {column.title} curve of each method on {model}; means, best first: {ends}",
        svg=curve_svg(
            [(one.axis, one.curve, colours[one.method]) for one in reversed(ranked)],
            name=name,
            vertical=summaries[0].vertical,
            horizontal=summaries[0].horizontal,
        ),
        legend=tuple(
            LegendEntry(colours[one.method], "no value" if one.mean is None else figure(one.mean)) for one in ranked
        ),
    )


def curve_svg(
    curves: Sequence[tuple[Sequence[float] | Sequence[str], Sequence[float], Series]],
    *,
    name: str,
    vertical: str,
    horizontal: str,
) -> str:
    """Draw curves.

    Args:
        curves: for each, shares in [0, 1], drawn in per cent, or names, drawn side by side in their
            order; values; how it is drawn. The last lies on top.
        name: put before the ids inside, so that two drawings on one page share none; letters, digits and `-`.
        vertical, horizontal: what the axes show.

    Returns:
        An `<svg>` element without fixed size, the same bytes for the same input. Its colours are the page's
        variables `--ink`, `--muted`, `--rule` and each series's.
    """
    names = list(dict.fromkeys(point for axis, _, _ in curves for point in axis if isinstance(point, str)))
    letters = min(max(map(len, names), default=0), _LONGEST_NAME)
    level = len(_shown(len(names))) * letters <= _LEVEL_LETTERS

    def draw(axes: Axes) -> None:
        for axis, values, series in curves:
            axes.plot(
                _places(axis, names), values, **line_style(series), marker="o" if names else None, markersize=MARKER
            )
        if names:
            _write_names(axes, names, level=level)
        else:
            ends = [place for axis, _, _ in curves for place in _places(axis, names)]
            axes.set_xlim(min(ends), max(ends) if max(ends) > min(ends) else min(ends) + 1)
        axes.set_ylim(bottom=min(0.0, *(min(values) for _, values, _ in curves)))

    # Slanted names take room below the axis, which the curves are not to lose.
    longer = 0.0 if level else 0.05 * letters
    series = [one for _, _, one in curves]
    return axes_svg(draw, series, name=name, vertical=vertical, horizontal=horizontal, longer=longer)


def line_style(series: Series) -> dict[str, Any]:
    """How matplotlib draws the line of a method."""
    dash = (0, tuple(length / _LINE for length in series.dash)) if series.dash else "solid"
    return {"color": series.light, "linestyle": dash, "linewidth": _LINE}


def axes_svg(
    draw: Callable[[Axes], None],
    series: Iterable[Series],
    *,
    name: str,
    vertical: str,
    horizontal: str,
    longer: float = 0.0,
) -> str:
    """Axes as all plots of the page have them.

    Args:
        draw: puts the lines in, in the light colours of their series or in `INK`.
        series: the methods drawn.
        name, vertical, horizontal: as of `curve_svg`.
        longer: added to the height, in inches.

    Returns:
        As `curve_svg`.
    """
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 11}):
        drawing = Figure(figsize=(5.2, 3.3 + longer), layout="constrained")
        canvas = FigureCanvasSVG(drawing)
        axes = drawing.add_subplot()
        drawing.patch.set_alpha(0)
        axes.patch.set_alpha(0)
        draw(axes)
        axes.set_xlabel(textwrap.fill(horizontal, _ACROSS), color=_MUTED, parse_math=False)
        axes.set_ylabel(textwrap.fill(vertical, _UP), color=_MUTED, parse_math=False)
        axes.tick_params(colors=_MUTED, length=3)
        axes.grid(color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_MUTED)
        sink = io.StringIO()
        canvas.print_svg(  # type: ignore[no-untyped-call]
            sink, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    return _for_page(sink.getvalue(), {one.light: f"var(--{one.name})" for one in series}, name)


def _places(axis: Sequence[float] | Sequence[str], names: Sequence[str]) -> list[float]:
    """Where points lie: in per cent, or at the number of their name."""
    return [names.index(point) if isinstance(point, str) else 100 * point for point in axis]


def _shown(count: int) -> range:
    """Which of many names are written: the first, and evenly from there."""
    return range(0, count, max(1, -(-count // _MOST_NAMES)))


def _write_names(axes: Axes, names: Sequence[str], *, level: bool) -> None:
    """Names under the axis, slanted where side by side they would run into each other."""
    shown = _shown(len(names))
    # The end of a name tells blocks apart: layer4.2.conv3.
    texts = [one if len(one) <= _LONGEST_NAME else f"…{one[1 - _LONGEST_NAME :]}" for one in (names[i] for i in shown)]
    axes.set_xticks(list(shown), texts, parse_math=False)
    if not level:
        for label in axes.get_xticklabels():
            label.set(rotation=60, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.3, len(names) - 0.7)


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

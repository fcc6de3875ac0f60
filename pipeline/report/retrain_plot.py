"""Accuracy after retraining over the share of pixels, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from pipeline.report.curve_plot import INK, MARKER, LegendEntry, Plot, axes_svg, line_style
from pipeline.report.faithfulness import Column
from pipeline.report.palette import Series
from pipeline.report.retraining import percent
from pipeline.retrain.summary import ACCURACY, Area, Benchmark, Point, horizontal

# Of the range of shares: over how much the methods' points are spread, so that their intervals stand side by side.
_SPREAD = 0.03
# Of the range of means: how much of the intervals is shown beyond it, and the margin.
_BEYOND, _MARGIN = 0.35, 0.06


def retrain_plots(found: Sequence[Benchmark], colours: Mapping[str, Series]) -> list[Plot]:
    """A plot a benchmark that has points: a line a method, and one for the clean arm."""
    return [_plot(f"retrain-plot-{number}", one, colours) for number, one in enumerate(found, start=1) if one.points]


def _plot(name: str, one: Benchmark, colours: Mapping[str, Series]) -> Plot:
    sign = -1 if one.higher_is_better else 1
    areas = sorted(one.areas, key=lambda area: (area.area is None, sign * (area.area.mean if area.area else 0)))
    ends = ", ".join(f"{area.method} {_text(area)}" for area in areas)
    methods = {area.method: [point for point in one.points if point.method == area.method] for area in one.areas}
    return Plot(
        model=one.model,
        column=Column(one.kind, ACCURACY, one.higher_is_better),
        description=f"Accuracy of {one.network} trained anew with each method's maps of {one.model}, over the share of "
        f"pixels; areas in per cent, best first: {ends}",
        svg=axes_svg(
            lambda axes: _draw(axes, one, methods, colours),
            [colours[method] for method in methods],
            name=name,
            vertical="accuracy on test images (%)",
            horizontal=horizontal(one.kind),
        ),
        legend=tuple(LegendEntry(colours[area.method], _text(area)) for area in areas),
    )


def _text(area: Area) -> str:
    shown = percent(area.area, 1)
    return "no area yet" if shown is None else str(shown)


def _draw(axes: Axes, one: Benchmark, methods: Mapping[str, Sequence[Point]], colours: Mapping[str, Series]) -> None:
    low, high = 100 * one.fractions[0], 100 * one.fractions[-1]
    reach = max(high - low, 10.0)
    for number, (method, points) in enumerate(methods.items()):
        if not points:
            continue
        aside = _SPREAD * reach * ((number + 0.5) / len(methods) - 0.5)
        places = [100 * point.fraction + aside for point in points]
        means = [100 * point.accuracy.mean for point in points]
        halves = [100 * (point.accuracy.half or 0.0) for point in points]
        axes.errorbar(places, means, halves, fmt="none", ecolor=colours[method].light, elinewidth=1.0, capsize=2)
        axes.plot(places, means, **line_style(colours[method]), marker="o", markersize=MARKER)
    if one.clean is not None:
        height = 100 * one.clean.mean
        axes.axhline(height, color=INK, linewidth=1.0)
        axes.annotate(
            "clean", (0.995, height), (0, 2), ("axes fraction", "data"), "offset points", ha="right", color=INK
        )
    axes.set_xlim(low - 0.05 * reach, high + 0.05 * reach)
    axes.set_xticks([100 * fraction for fraction in one.fractions], [f"{100 * one:g}" for one in one.fractions])
    axes.set_ylim(*_limits(one))


def _limits(one: Benchmark) -> tuple[float, float]:
    """Around the means; intervals of few repeats are long, and would press the curves into a line."""
    means = [100 * point.accuracy.mean for point in one.points] + ([100 * one.clean.mean] if one.clean else [])
    halves = [100 * (point.accuracy.half or 0.0) for point in one.points]
    span = max(max(means) - min(means), 1.0)
    ends = [
        end
        for point, half in zip(one.points, halves, strict=True)
        for end in (100 * point.accuracy.mean - half, 100 * point.accuracy.mean + half)
    ]
    margin = _MARGIN * span
    bottom = min(min(means), max(min(ends), min(means) - _BEYOND * span)) - margin
    top = max(max(means), min(max(ends), max(means) + _BEYOND * span)) + margin
    # Room above the line of the clean arm for its name.
    top = max(top, 100 * one.clean.mean + 2 * margin) if one.clean else top
    return max(bottom, 0.0 - margin), min(top, 100.0 + 2 * margin)

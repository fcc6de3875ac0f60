"""What a tolerance may be for: a metric, one measure of it, or all others."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from jobs.problem import hint
from pipeline.record_shape import DEFAULT


def tolerance_trouble(name: str, measures: Mapping[str, Collection[str]], unknown: str) -> str:
    """Why a tolerance would be for nothing; empty where it is for something.

    Args:
        name: `METRIC`, `METRIC MEASURE` or `default`.
        measures: of each metric that there is.
        unknown: the beginning of a message about a metric that there is not, such as `neither run has`.
    """
    metric, space, measure = name.partition(" ")
    if metric == DEFAULT and space:
        return f"{DEFAULT} is for all metrics without a tolerance of their own, and has no measure '{measure}'"
    if metric != DEFAULT and metric not in measures:
        return f"{unknown} '{metric}'{hint(metric, [*measures, DEFAULT])}"
    if space and measure not in measures[metric]:
        return f"{metric} has no measure '{measure}'{hint(measure, list(measures[metric]))}"
    return ""

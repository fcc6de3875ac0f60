"""A run in a few figures: the best method by each measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CONTROL = "random"


@dataclass(frozen=True, slots=True)
class Headline:
    """The best mean of one model and measure, the random control aside.

    Attributes:
        model, metric, measure: what was measured.
        method: whose mean is the best.
        mean, low, high: the mean and its 95 % interval; without one in a single repeat.
        higher_is_better: which way the measure points.
    """

    model: str
    metric: str
    measure: str
    method: str
    mean: float
    low: float | None
    high: float | None
    higher_is_better: bool

    @property
    def title(self) -> str:
        """Model and measure, as a column is headed."""
        own = "" if self.measure in ("auc", self.metric) else f" {self.measure}"
        return f"{self.model} {self.metric}{own}"


def is_control(record: Mapping[str, Any], method: str) -> bool:
    """Whether a method of a run's record, told by its id, is the random control."""
    programs = {one["id"]: one["config"]["name"] for one in record["spec"].get("methods") or ()}
    # Retraining has a random arm also where the spec has no method of that name.
    return bool(programs.get(method, method) == CONTROL)


def headlines(record: Mapping[str, Any]) -> list[Headline]:
    """The headlines of a run's record, in the order of its summary."""
    columns: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in record["summary"]:
        if row["mean"] is not None and not is_control(record, row["method"]):
            columns.setdefault((row["model"], row["metric"], row["measure"]), []).append(row)
    found = []
    for (model, metric, measure), rows in columns.items():
        best = max(rows, key=lambda row: row["mean"] if row["higher_is_better"] else -row["mean"])
        mean, low, high = best["mean"], best["low"], best["high"]
        found.append(Headline(model, metric, measure, best["method"], mean, low, high, best["higher_is_better"]))
    return found

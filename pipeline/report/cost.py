"""What the maps and scores of a run took to compute."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.report.record import RunRecord, Timing


@dataclass(frozen=True, slots=True)
class CostRow:
    """The cost of one method or metric on one model.

    Attributes:
        model, name: whose; for a metric, over the maps of all methods.
        samples: how many were computed.
        seconds: of computing, in all.
        forwards, backwards: a sample, at most, the mean over the methods; None where not recorded.
    """

    model: str
    name: str
    samples: int
    seconds: float
    forwards: float | None
    backwards: float | None

    @property
    def seconds_a_sample(self) -> str:
        """In three digits with a unit that suits."""
        return duration(self.seconds / self.samples)


def method_costs(record: RunRecord) -> list[CostRow]:
    """A row a model and method, the random control last."""
    order = {method: place for place, method in enumerate(record.methods)}
    rows = _costs((one.method, one) for one in record.timings if one.stage == "attribute")
    return sorted(rows, key=lambda row: order.get(row.name, 0))


def metric_costs(record: RunRecord) -> list[CostRow]:
    """A row a model and metric, over the maps of all methods."""
    return _costs((one.metric, one) for one in record.timings if one.stage == "evaluate")


def duration(seconds: float) -> str:
    """A time in the unit that suits it: `12 ms`, `3.4 s`, `5 min 7 s`, `2 h 3 min`."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.3g} µs"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _costs(named: Iterable[tuple[str | None, Timing]]) -> list[CostRow]:
    groups: dict[tuple[str, str], list[Timing]] = {}
    for name, timing in named:
        if name is not None and timing.samples > 0:
            groups.setdefault((timing.model, name), []).append(timing)
    return [
        CostRow(
            model,
            name,
            sum(one.samples for one in group),
            sum(one.seconds for one in group),
            _mean([(one.samples, one.forwards) for one in group]),
            _mean([(one.samples, one.backwards) for one in group]),
        )
        for (model, name), group in groups.items()
    ]


def _mean(weighted: list[tuple[int, float | None]]) -> float | None:
    """A metric that runs each method again costs with each what that one does."""
    known = [(samples, passes) for samples, passes in weighted if passes is not None]
    total = sum(samples for samples, _ in known)
    return sum(samples * passes for samples, passes in known) / total if total else None

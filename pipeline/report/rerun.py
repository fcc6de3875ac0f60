"""Two runs side by side: every figure that both have, sample by sample where the samples are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isclose
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.noise import Noise
from pipeline.report.change import Change, unpaired_interval
from pipeline.report.record import RunRecord
from pipeline.stages.comparison import paired_intervals
from pipeline.stages.summarise import Summary
from pipeline.store import Output

DEFAULT = "default"
"""Key of the tolerance of all metrics without one of their own."""

# Settings that say how much is looked at, or how it is kept, and not what is measured.
_NOT_OF_THE_MEASURE = {"samples", "methods", "repeats", "save_weights", "write_masked"}

Key = tuple[str, str, str, str]
"""Model, method, metric and measure."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run and the output that holds its rows."""

    output: Output
    record: RunRecord


@dataclass(frozen=True, slots=True)
class Rerun:
    """What two runs have in common, and what moved.

    Attributes:
        before, after: their records.
        same_data: whether both are over the same data set, a longer or shorter stretch of it aside.
        changes: every figure that both have, a model after the other, in the order of the second run.
        only_before, only_after: figures of one run alone.
        incomparable: figures of both that do not measure the same, with the reason.
    """

    before: RunRecord
    after: RunRecord
    same_data: bool
    changes: tuple[Change, ...]
    only_before: tuple[Key, ...]
    only_after: tuple[Key, ...]
    incomparable: tuple[tuple[Key, str], ...]

    @property
    def regressions(self) -> list[Change]:
        """Methods that got clearly worse than is tolerated."""
        return [one for one in self.changes if one.regression]


def compare_runs(before: Run, after: Run, tolerance: Mapping[str, float]) -> Rerun:
    """Compare every figure of two runs, of one output or of two.

    Samples are paired by their ids. Where the runs share the committed rows of a figure, it has not moved. Rows that
    are gone, or were computed again since (`--fresh`), measures that a batch takes together and repeats of a training
    are compared by the intervals that the records hold.

    Args:
        before, after: the runs.
        tolerance: how much a figure may move without mattering, in its own units: by `metric measure`, by metric, or
            under `default`; default 0.

    Returns:
        The same rows give the same figures: resampling draws with the second run's seed.
    """
    old, new = ({_key(one): one for one in run.record.summary} for run in (before, after))
    models = {model: place for place, model in enumerate(after.record.models)}
    methods = {method: place for place, method in enumerate(after.record.methods)}
    order = sorted(new, key=lambda key: (models.get(key[0], len(models)), methods.get(key[1], len(methods))))
    both = [key for key in order if key in old]
    reasons = {key: _otherwise(before.record, after.record, old[key], new[key]) for key in both}
    pairs = _Pairs(before, after)
    return Rerun(
        before=before.record,
        after=after.record,
        same_data=before.record.dataset_fingerprint == after.record.dataset_fingerprint,
        changes=tuple(_change(pairs, old[key], new[key], tolerance) for key in both if not reasons[key]),
        only_before=tuple(key for key in old if key not in new),
        only_after=tuple(key for key in order if key not in old),
        incomparable=tuple((key, reason) for key, reason in reasons.items() if reason),
    )


def _key(one: Summary) -> Key:
    return one.model, one.method, one.metric, one.measure


def _otherwise(before: RunRecord, after: RunRecord, old: Summary, new: Summary) -> str:
    """Why two figures of one name do not measure the same; empty where they do."""
    if old.higher_is_better != new.higher_is_better or old.over != new.over:
        return "the measure points the other way" if old.over == new.over else "samples and repeats"
    kind = "retrain" if new.over == "repeats" else "metrics"
    first, second = (_settings(record, kind, new.metric) for record in (before, after))
    # A setting that only one knows came with another version, whose default is what was done before.
    differing = [name for name in first if name in second and first[name] != second[name]]
    if differing:
        return f"{new.metric} is set otherwise: {', '.join(sorted(differing))}"
    targets = [_settings(record, "methods", new.method).get("target") for record in (before, after)]
    if None not in targets and targets[0] != targets[1]:
        return f"{new.method} explains another class: target {targets[1]}, before {targets[0]}"
    return ""


def _settings(record: RunRecord, kind: str, identifier: str) -> dict[str, Any]:
    """What the spec says of a method, a metric, or the retraining; empty where the record does not tell."""
    written = record.spec.get(kind) or ()
    if not isinstance(written, Mapping):
        found = (one["config"] for one in written if one["id"] == identifier)
        written = next(found, {})
    return {name: value for name, value in written.items() if name not in _NOT_OF_THE_MEASURE}


def _change(pairs: _Pairs, old: Summary, new: Summary, tolerance: Mapping[str, float]) -> Change:
    after = pairs.after.record
    one = Change(
        *_key(new),
        higher_is_better=new.higher_is_better,
        over=new.over,
        control=new.method == after.control,
        before=old.mean,
        after=new.mean,
        before_n=old.n,
        after_n=new.n,
        pairing="unpaired",
        pairs=0,
        difference=None,
        low=None,
        high=None,
        tolerance=_tolerated(new, tolerance),
    )
    if pairs.same_rows(old, new):
        nothing = None if new.mean is None else 0.0
        return replace(one, pairing="same rows", pairs=new.n, difference=nothing, low=nothing, high=nothing)
    note = ""
    if new.by_sample and old.by_sample and new.over == "samples":
        found = pairs.values(old, new)
        if not isinstance(found, str):
            values, retargeted = found
            low, high = next(paired_intervals(values, [(1, 0)], Noise(after.seed or 0).generator("bootstrap", "pairs")))
            difference = float((values[:, 1] - values[:, 0]).mean())
            return replace(
                one,
                pairing="paired",
                pairs=len(values),
                difference=difference,
                low=low,
                high=high,
                retargeted=retargeted,
            )
        note = found
    if old.mean is None or new.mean is None:
        return replace(one, note="no value in the " + ("first" if old.mean is None else "second") + " run")
    one = replace(one, difference=new.mean - old.mean, note=note)
    if old.low is None or old.high is None or new.low is None or new.high is None:
        return one
    low, high = unpaired_interval((old.mean, old.low, old.high), (new.mean, new.low, new.high))
    return replace(one, low=low, high=high)


def _tolerated(new: Summary, tolerance: Mapping[str, float]) -> float | None:
    """The tolerance of a measure; what belongs to the machine has none unless somebody names it."""
    own = tolerance.get(f"{new.metric} {new.measure}", tolerance.get(new.metric))
    if own is not None:
        return own
    return tolerance.get(DEFAULT, 0.0) if new.by_sample or new.over == "repeats" else None


class _Pairs:
    """The rows behind figures of two runs, paired by the samples' ids."""

    def __init__(self, before: Run, after: Run) -> None:
        self.before, self.after = before, after
        self._fingerprints = [fingerprints(run.record) for run in (before, after)]
        self._read: dict[int, tuple[tuple[str, str, str], pa.Table | None]] = {}

    def same_rows(self, old: Summary, new: Summary) -> bool:
        """Whether both figures are of the same committed rows: nothing was computed anew between the runs."""
        if self.before.output.uri != self.after.output.uri:
            return False
        first, second = (known.get((new.model, new.method, new.metric)) for known in self._fingerprints)
        # A figure that is another one although its rows have the same name: they were computed again.
        return first is not None and first == second and _figures(old) == _figures(new)

    def values(self, old: Summary, new: Summary) -> tuple[NDArray[np.float64], int] | str:
        """Values (n, 2), before and after, of the samples that both have, n at least 1, and how many of them explain
        another class; or why there are none."""
        sources = {run.record.dataset.get("source") for run in (self.before, self.after)}
        if len(sources) > 1:
            return "the runs are over different data"
        tables = []
        for run, one, which in ((self.before, old, "first"), (self.after, new, "second")):
            table = self._rows(run, one)
            if table is None:
                return f"the rows of the {which} run are gone"
            if not _holds(table, one):
                return f"the rows of the {which} run were computed again since"
            tables.append(table)
        first, second = tables
        place = pc.index_in(first["id"], value_set=second["id"].combine_chunks())
        first, second = first.filter(pc.is_valid(place)), second.take(place.drop_null())
        if not first.num_rows:
            return "the runs have no sample in common"
        values = np.stack([table["value"].to_numpy().astype(np.float64) for table in (first, second)], axis=1)
        return values, int(pc.sum(pc.not_equal(first["target"], second["target"])).as_py() or 0)

    def _rows(self, run: Run, one: Summary) -> pa.Table | None:
        """Id, target and value of the samples that have a value; None where the rows are not there."""
        variant = (one.model, one.method, one.metric)
        kept = self._read.get(id(run))
        if kept is None or kept[0] != variant:
            path, total = run.record.scored.get(variant, ("", 0))
            columns = ["id", "target", "measure", "value"]
            # Only the last variant is kept: its measures come one after the other.
            kept = self._read[id(run)] = variant, run.output.read(path, 0, total, columns) if path else None
        table = kept[1]
        if table is None:
            return None
        wanted = pc.and_(pc.equal(table["measure"].cast("string"), one.measure), pc.is_valid(table["value"]))
        return table.filter(wanted)


def _figures(one: Summary) -> Sequence[object]:
    return one.n, one.missing, one.mean, one.low, one.high


def _holds(table: pa.Table, one: Summary) -> bool:
    """Whether rows are those that a figure was taken from."""
    if table.num_rows != one.n or one.mean is None:
        return bool(table.num_rows == one.n)
    mean = float(table["value"].to_numpy().astype(np.float64).mean())
    return isclose(mean, one.mean, rel_tol=1e-9, abs_tol=1e-12)


def fingerprints(record: RunRecord) -> dict[tuple[str, str, str], frozenset[str]]:
    """By model, method and metric, the fingerprints of what its figures were taken from, where the record tells."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for variant in record.of_stage("evaluate"):
        found.setdefault((variant.model, str(variant.method), str(variant.metric)), set()).add(variant.fingerprint)
    cells = [(variant, variant.cell.kind) for variant in record.of_stage("retrain") if variant.cell is not None]
    for variant, kind in cells:
        if variant.method is not None:
            found.setdefault((variant.model, variant.method, kind), set()).add(variant.fingerprint)
    for variant, kind in cells:
        # The clean arm is behind the figures of every method.
        if variant.method is None:
            for model, method, metric in found:
                if (model, metric) == (variant.model, kind):
                    found[model, method, metric].add(variant.fingerprint)
    return {key: frozenset(some) for key, some in found.items() if "" not in some}

"""Two runs side by side: every figure that both have, sample by sample where the samples are the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from pipeline.noise import Noise
from pipeline.record_shape import DEFAULT
from pipeline.report.change import FEWEST, Change, clear_loss, unpaired_interval
from pipeline.report.pair import NO_SAMPLE, Paired, Pairs, Run
from pipeline.report.record import RunRecord
from pipeline.stages.comparison import paired_intervals
from pipeline.stages.summarise import Summary

# Settings that say how much is looked at, or how it is kept, and not what is measured.
_NOT_OF_THE_MEASURE = {"samples", "methods", "repeats", "save_weights", "write_masked"}

FEW = 50
"""Pairs below which an interval is no narrower than Student's."""

Key = tuple[str, str, str, str]
"""Model, method, metric and measure."""


@dataclass(frozen=True, slots=True)
class Rerun:
    """What two runs have in common, and what moved.

    Attributes:
        before, after: their records.
        same_data: whether both are over the same data set, a longer or shorter stretch of it aside.
        changes: every figure that both have, a model after the other, in the order of the second run; and those of the
            first that the second was to have and has not.
        only_before, only_after: figures of one run alone.
        incomparable: figures of both that do not measure the same, or not the same samples, with the reason.
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
    are compared by the intervals that the records hold. Figures over data of another source, or without a sample in
    common, are set aside: what differs between them is the data.

    Args:
        before, after: the runs.
        tolerance: how much a figure may move without mattering, in its own units: by `metric measure`, by metric, or
            under `default`; default 0.

    Returns:
        The same rows give the same figures: resampling draws with the second run's seed.
    """
    old, new = ({_key(one): one for one in run.record.summary} for run in (before, after))
    new |= {_key(one): one for one in _vanished(old.values(), new.values(), after.record)}
    models = {model: place for place, model in enumerate(after.record.models)}
    methods = {method: place for place, method in enumerate(after.record.methods)}
    order = sorted(new, key=lambda key: (models.get(key[0], len(models)), methods.get(key[1], len(methods))))
    pairs = Pairs(before, after)
    found = _apart({key: _compared(pairs, old[key], new[key], tolerance) for key in order if key in old})
    return Rerun(
        before=before.record,
        after=after.record,
        same_data=before.record.dataset_fingerprint == after.record.dataset_fingerprint,
        changes=tuple(one for one in found.values() if isinstance(one, Change)),
        only_before=tuple(key for key in old if key not in new),
        only_after=tuple(key for key in order if key not in old),
        incomparable=tuple((key, one) for key, one in found.items() if isinstance(one, str)),
    )


def _key(one: Summary) -> Key:
    return one.model, one.method, one.metric, one.measure


def _vanished(old: Iterable[Summary], new: Iterable[Summary], after: RunRecord) -> Iterator[Summary]:
    """Figures of the first run that the second was to have: not one sample came so far that it could be scored."""
    there = {(one.model, one.method, one.metric) for one in new}
    wanted = set(after.scored) | {
        (one.model, one.cell.method, one.cell.kind) for one in after.of_stage("retrain") if one.cell is not None
    }
    for one in old:
        if (one.model, one.method, one.metric) in wanted - there:
            yield replace(one, n=0, missing=0, mean=None, low=None, high=None, axis=(), curve=())


def _apart(found: dict[Key, Change | str]) -> dict[Key, Change | str]:
    """Where no sample is found in common, what is not counted by sample is of other data as well."""
    paired = any(isinstance(one, Change) and one.pairing != "unpaired" for one in found.values())
    if paired or NO_SAMPLE not in found.values():
        return found
    return {key: NO_SAMPLE if isinstance(one, Change) else one for key, one in found.items()}


def _otherwise(before: RunRecord, after: RunRecord, old: Summary, new: Summary) -> str:
    """Why two figures of one name do not measure the same; empty where they do."""
    sources = [record.dataset.get("source") for record in (before, after)]
    if sources[0] != sources[1]:
        return f"the runs are over different data: source {sources[1]}, before {sources[0]}"
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


def _compared(pairs: Pairs, old: Summary, new: Summary, tolerance: Mapping[str, float]) -> Change | str:
    """By how much a figure moved; or why that cannot be said."""
    after = pairs.after.record
    if reason := _otherwise(pairs.before.record, after, old, new):
        return reason
    one = Change(
        *_key(new),
        higher_is_better=new.higher_is_better,
        over=new.over,
        control=new.method == after.control,
        before=old.mean,
        after=new.mean,
        before_n=old.n,
        after_n=new.n,
        before_missing=old.missing,
        after_missing=new.missing,
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
    if new.by_sample and old.by_sample and new.over == "samples" and new.n + new.missing:
        found = pairs.of(old, new)
        if isinstance(found, Paired):
            return _paired(one, found, after.seed or 0)
        if found.apart:
            return found.reason
        note = found.reason
    if old.mean is None or new.mean is None:
        return replace(one, lost=old.mean is not None, note=_no_value(one))
    given_up = _given_up(pairs.before.record, after, old, new)
    gone = new.missing + given_up
    lost = clear_loss((old.missing, old.n + old.missing), (gone, new.n + gone))
    one = replace(one, after_missing=gone, difference=new.mean - old.mean, note=note, lost=lost)
    if old.low is None or old.high is None or new.low is None or new.high is None:
        return one
    low, high = unpaired_interval((old.mean, old.low, old.high), (new.mean, new.low, new.high))
    return replace(one, low=low, high=high)


def _given_up(before: RunRecord, after: RunRecord, old: Summary, new: Summary) -> int:
    """Samples that the second run did not come to, though it was to: fewer of as many, where units of it were lost."""
    totals = {record.scored.get((new.model, new.method, new.metric), ("", 0))[1] for record in (before, after)}
    if not after.lost or len(totals) > 1 or new.over != "samples":
        return 0
    return max(0, old.n + old.missing - new.n - new.missing)


def _paired(one: Change, found: Paired, seed: int) -> Change:
    """The change by sample: of those that have a value in both runs, and of those that have none any more."""
    one = replace(one, before_missing=found.before_missing, after_missing=found.after_missing, shared=found.shared)
    lost = clear_loss((found.before_missing, found.shared), (found.after_missing, found.shared))
    if not len(found.values):
        # Without a value in the second run the first had some for other samples alone, or these have lost theirs.
        gone = one.after is None and found.before_missing < found.shared
        return replace(one, lost=lost or gone, note=_no_value(one) or "no sample has a value in both runs")
    low, high = _interval(found.values, seed)
    return replace(
        one,
        pairing="paired",
        pairs=len(found.values),
        difference=float((found.values[:, 1] - found.values[:, 0]).mean()),
        low=low,
        high=high,
        retargeted=found.retargeted,
        scale=float(np.abs(found.values).mean()),
        lost=lost,
    )


def _interval(values: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """95 % interval of the mean difference of pairs: `paired_intervals`; of few, Student's where that is wider."""
    low, high = next(paired_intervals(values, [(1, 0)], Noise(seed).generator("bootstrap", "pairs")))
    if FEWEST <= len(values) < FEW:
        # The percentiles of a few pairs are too narrow: of six that differ by chance they call 1 in 7 a change.
        differences = values[:, 1] - values[:, 0]
        spread = float(differences.std(ddof=1)) / len(values) ** 0.5 * float(stdtrit(len(values) - 1, 0.975))
        low, high = min(low, float(differences.mean()) - spread), max(high, float(differences.mean()) + spread)
    return low, high


def _no_value(one: Change) -> str:
    """Which run has no value at all; empty where both have one."""
    lacking = [which for which, mean in (("first", one.before), ("second", one.after)) if mean is None]
    return f"no value in the {' and the '.join(lacking)} run" if lacking else ""


def _tolerated(new: Summary, tolerance: Mapping[str, float]) -> float | None:
    """The tolerance of a measure; what belongs to the machine has none unless somebody names it."""
    own = tolerance.get(f"{new.metric} {new.measure}", tolerance.get(new.metric))
    if own is not None:
        return own
    return tolerance.get(DEFAULT, 0.0) if new.by_sample or new.over == "repeats" else None

"""The rows behind the figures of two runs, paired by the samples' ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.ranges import gaps
from pipeline.report.record import RunRecord
from pipeline.stages.summarise import Summary
from pipeline.store import Output

if TYPE_CHECKING:
    from pipeline.data import Dataset

NO_SAMPLE = "the runs have no sample in common"
OTHER_LABELS = "samples of one name have other labels"


@dataclass(frozen=True, slots=True)
class Run:
    """A run and the output that holds its rows."""

    output: Output
    record: RunRecord


@dataclass(frozen=True, slots=True)
class Paired:
    """One figure of two runs, by sample.

    Attributes:
        values: (n, 2), before and after, of the samples that have a value in both.
        retargeted: how many of those explain another class in the second run.
        shared: samples that both runs looked at, with a value or without.
        before_missing, after_missing: how many of those have none: the score is null, or the sample failed on its way
            to it, or, in the second run, was given up.
    """

    values: NDArray[np.float64]
    retargeted: int
    shared: int
    before_missing: int
    after_missing: int


@dataclass(frozen=True, slots=True)
class Unpaired:
    """Why samples cannot be paired.

    Attributes:
        reason: in words.
        apart: whether the figures are of other samples, or may be, so that they say nothing about each other.
    """

    reason: str
    apart: bool = False


class Pairs:
    """The rows behind figures of two runs."""

    def __init__(self, before: Run, after: Run) -> None:
        self.before, self.after = before, after
        self._fingerprints = [fingerprints(run.record) for run in (before, after)]
        self._read: dict[int, tuple[tuple[str, str, str], pa.Table | None]] = {}
        self._failed: dict[tuple[int, str, int], pa.Array] = {}
        self._dataset: Dataset | None = None
        self._left_out: dict[str, pa.Array] = {}

    def same_rows(self, old: Summary, new: Summary) -> bool:
        """Whether both figures are of the same committed rows: nothing was computed anew between the runs."""
        if self.before.output.uri != self.after.output.uri:
            return False
        first, second = (known.get((new.model, new.method, new.metric)) for known in self._fingerprints)
        # A figure that is another one although its rows have the same name: they were computed again.
        return first is not None and first == second and _figures(old) == _figures(new)

    def of(self, old: Summary, new: Summary) -> Paired | Unpaired:
        """A figure of both runs by sample, or why not."""
        found = []
        for run, one, which in ((self.before, old, "first"), (self.after, new, "second")):
            table = self._rows(run, one)
            if table is None:
                return self._without_rows(f"the rows of the {which} run are gone")
            known = table.filter(pc.is_valid(table["value"]))
            if not _holds(known, one):
                return self._without_rows(f"the rows of the {which} run were computed again since")
            found.append((known, pa.concat_arrays([_array(table["id"]), *self._failures(run, one)]).unique()))
        (first, old_ids), (second, new_ids) = found
        # What the second run gave up has neither a row nor a failure, and is lost all the same.
        new_ids = pa.concat_arrays([new_ids, self._given_up(new)]).unique()
        shared = old_ids.filter(pc.is_in(old_ids, value_set=new_ids))
        if not len(shared):
            return Unpaired(NO_SAMPLE, apart=True)
        old_known, new_known = (int(pc.sum(pc.is_in(one["id"], value_set=shared)).as_py() or 0) for one, _ in found)
        place = pc.index_in(first["id"], value_set=_array(second["id"]))
        first, second = first.filter(pc.is_valid(place)), second.take(place.drop_null())
        if _mostly_differ(first["label"], second["label"]):
            return Unpaired(OTHER_LABELS, apart=True)
        return Paired(
            values=np.stack([table["value"].to_numpy().astype(np.float64) for table in (first, second)], axis=1),
            retargeted=int(pc.sum(pc.not_equal(first["target"], second["target"])).as_py() or 0),
            shared=len(shared),
            before_missing=len(shared) - old_known,
            after_missing=len(shared) - new_known,
        )

    def _without_rows(self, reason: str) -> Unpaired:
        """Of data sets that differ nobody can tell any more whether they have a sample in common."""
        if self.before.record.dataset_fingerprint == self.after.record.dataset_fingerprint:
            return Unpaired(reason)
        return Unpaired(f"the data sets differ, and {reason}", apart=True)

    def _rows(self, run: Run, one: Summary) -> pa.Table | None:
        """Id, label, target and value of the samples that were scored; None where the rows are not there."""
        variant = (one.model, one.method, one.metric)
        kept = self._read.get(id(run))
        if kept is None or kept[0] != variant:
            path, total = run.record.scored.get(variant, ("", 0))
            columns = ["id", "label", "target", "measure", "value"]
            # Only the last variant is kept: its measures come one after the other.
            kept = self._read[id(run)] = variant, run.output.read(path, 0, total, columns) if path else None
        table = kept[1]
        return None if table is None else table.filter(pc.equal(table["measure"].cast("string"), one.measure))

    def _given_up(self, new: Summary) -> pa.Array:
        """Ids of the samples that the second run was to score and did not come to."""
        record, output = self.after.record, self.after.output
        if not record.lost:
            return pa.array([], pa.string())
        # A data set loads torch, which a comparison of whole runs shall not wait for.
        from pipeline.report.dataset import run_dataset  # noqa: PLC0415

        path, total = record.scored[new.model, new.method, new.metric]
        if path not in self._left_out:
            self._dataset = self._dataset or run_dataset(output, output.run(record.run))
            left = [self._dataset.ids(start, stop) for start, stop in gaps(output.parts(path), total)]
            self._left_out[path] = pa.array([one for ids in left for one in ids], pa.string())
        return self._left_out[path]

    def _failures(self, run: Run, one: Summary) -> list[pa.Array]:
        """Ids of the samples that failed on the way to a figure: predicted, explained or scored."""
        wanted = {"predict": (None, None), "attribute": (one.method, None), "evaluate": (one.method, one.metric)}
        found = []
        for stage, names in wanted.items():
            for variant in run.record.of_stage(stage):
                if variant.model != one.model or (variant.method, variant.metric) != names:
                    continue
                key = (id(run), variant.path, variant.total)
                if key not in self._failed:
                    table = run.output.failures([variant.path])
                    # Another run of the same output may have gone further.
                    within = table.filter(pc.less(table["position"], variant.total))
                    self._failed[key] = _array(within["id"])
                found.append(self._failed[key])
        return found


def _array(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays([pa.array([], pa.string()), *column.chunks])


def _figures(one: Summary) -> Sequence[object]:
    return one.n, one.missing, one.mean, one.low, one.high


def _mostly_differ(first: pa.ChunkedArray, second: pa.ChunkedArray) -> bool:
    """Whether most labels are others: names such as `test.parquet/0` say little about what they name."""
    equal = pc.equal(first, second).drop_null()
    return 2 * int(pc.sum(equal).as_py() or 0) < len(equal)


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

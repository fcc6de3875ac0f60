"""Runs as their records and score rows tell of them, without images: what a comparison reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.noise import Noise
from pipeline.report.change import Change
from pipeline.report.pair import Run
from pipeline.report.record import read_record
from pipeline.report.rerun import Rerun, compare_runs
from pipeline.stages.evaluate import SCHEMA
from pipeline.stages.summarise import Summary, bootstrap_interval
from pipeline.store import Output, open_output

Values = Mapping[str, float | None]
"""Scores by sample id."""

FIRST = "20260101T030405.000000Z-weekly"
SECOND = "20260108T030405.000000Z-weekly"


def values(count: int, shift: float = 0.0, spread: float = 0.0) -> dict[str, float]:
    """Scores of the samples s0, s1, …: drawn, the same each time, moved by `shift` give or take `spread`."""
    drawn = Noise(3).generator("values", "base").random(count)
    moved = shift + spread * Noise(3).generator("values", "moved").normal(size=count)
    return {f"s{number}": float(np.float32(one)) for number, one in enumerate(drawn + moved)}


def write_rerun(
    folder: Path,
    scores: Mapping[tuple[str, str], Values],
    *,
    run: str = FIRST,
    fingerprint: str = "f0",
    higher: bool = True,
    target: int = 0,
    label: int = 0,
    source: str = "digits",
    spec: Mapping[str, Any] | None = None,
    further: Sequence[Summary] = (),
    committed: bool = True,
    **changes: Any,
) -> Output:
    """Write a run's record, and its rows.

    Args:
        folder: the output; it may hold other runs.
        scores: by method and metric, the scores; in their order positions are given.
        run: the run's name.
        fingerprint: of every variant; rows of another one lie elsewhere.
        higher: whether higher is better.
        target, label: the class explained, and the samples' own.
        source, spec: of the record.
        further: figures beside those of the scores.
        committed: whether the rows are written.
        changes: keys of the record, or of every figure, that are to be otherwise.
    """
    output = open_output(folder, create=True)
    variants, summary = [], []
    names = Summary.__dataclass_fields__
    for (method, metric), found in scores.items():
        path = f"scores/model=net/method={method}/metric={metric}-{fingerprint}"
        entry = {"path": path, "stage": "evaluate", "model": "net", "method": method, "metric": metric}
        variants.append({**entry, "total": len(found), "fingerprint": fingerprint})
        one = figures(method, metric, found, higher).as_dict()
        summary.append({**one, **{name: value for name, value in changes.items() if name in names}})
        if committed and not output.parts(path):
            commit_scores(output, path, method, metric, found, target=target, label=label)
    stamp = f"{run[:4]}-{run[4:6]}-{run[6:8]}T{run[9:11]}:{run[11:13]}:{run[13:15]}+00:00"
    record = {
        "run": run,
        "name": "weekly",
        "status": "done",
        "started": stamp,
        "finished": stamp,
        "seconds": 72.0,
        "seed": 0,
        "samples": max((len(found) for found in scores.values()), default=0),
        "spec": {"methods": [], "metrics": [], **(spec or {})},
        "dataset": {"source": source},
        "dataset_fingerprint": f"data-{source}",
        "variants": variants,
        "units": {"done": 9, "reused": 1, "lost": 0, "stranded": 0},
        "failures": 0,
        "lost": [],
        "timings": [],
        "summary": [*summary, *(one.as_dict() for one in further)],
        **{name: value for name, value in changes.items() if name not in names},
    }
    output.write_bytes(f"runs/{run}.json", json.dumps(record).encode())
    return output


def figures(method: str, metric: str, found: Values, higher: bool = True) -> Summary:
    """The figures of some scores, as a run sums them up; the measure is called `auc`."""
    known = np.array([one for one in found.values() if one is not None], np.float32).astype(np.float64)
    if not len(known):
        return Summary("net", method, metric, "auc", higher, 0, len(found), None, None, None, (), ())
    low, high = bootstrap_interval(known, Noise(0).generator("bootstrap", "samples"))
    missing = len(found) - len(known)
    return Summary("net", method, metric, "auc", higher, len(known), missing, float(known.mean()), low, high, (), ())


def commit_scores(
    output: Output,
    path: str,
    method: str,
    metric: str,
    found: Values,
    *,
    target: int = 0,
    label: int = 0,
    start: int = 0,
) -> None:
    """Commit the rows of a variant whose positions begin at `start`."""
    rows = [
        {
            "position": position,
            "id": name,
            "label": label,
            "target": target,
            "model": "net",
            "method": method,
            "metric": metric,
            "measure": "auc",
            "value": value,
            "curve": None,
        }
        for position, (name, value) in enumerate(found.items(), start)
    ]
    output.commit(path, start, start + len(found), pa.Table.from_pylist(rows, schema=SCHEMA), [], list(found))


def opened(output: Output, run: str | None = None) -> Run:
    """A run as it is compared."""
    return Run(output, read_record(output, run, described=False))


def compared(before: Output, after: Output, tolerance: Mapping[str, float] | None = None) -> Rerun:
    """The first run of one output against the second run of another, or of the same."""
    return compare_runs(opened(before, FIRST), opened(after, SECOND), tolerance or {})


def only(rerun: Rerun) -> Change:
    """The one figure that was compared."""
    (one,) = rerun.changes
    return one


def two(tmp_path: Path, first: Any, second: Any, **changes: Any) -> tuple[Output, Output]:
    """Two outputs with one figure each; changes are of the second."""
    before = write_rerun(tmp_path / "a", {("agi", "deletion"): first})
    return before, write_rerun(tmp_path / "b", {("agi", "deletion"): second}, run=SECOND, **changes)

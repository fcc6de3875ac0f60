"""What a disturbed job left behind, held against what an undisturbed one did."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.store import Output

DATASETS = ("predict", "attribute", "evaluate")
"""Stages whose rows are compared: predictions, maps, scores."""

Range = tuple[str, int, int]
"""A variant's folder, a start and a stop."""

_MARKER = re.compile(r"^(.+)/_committed/(\d{9})-(\d{9})-([0-9a-f]{16})\.json$")


def markers(output: Path) -> dict[str, int]:
    """Markers of committed units under a local output, with the time at which each was written, in ns."""
    found = {}
    for one in output.rglob("_committed/*.json"):
        found[one.relative_to(output).as_posix()] = one.stat().st_mtime_ns
    return found


def ranges(names: Collection[str]) -> list[Range]:
    """What markers stand for."""
    matches = [match for name in names if (match := _MARKER.match(name))]
    return [(match[1], int(match[2]), int(match[3])) for match in matches]


@dataclass(frozen=True, slots=True)
class Difference:
    """How an output differs from an undisturbed one; a sample is a position of one variant.

    Attributes:
        samples: that the undisturbed one has, without those that were to fail.
        lost: that are not here.
        duplicated: that are here more often than there.
        changed: whose rows are not the same to the bit.
        largest: the largest difference of two numbers.
        other_parts: parts that only one of the two has; names of parts end in the hash of their content.
        failed: positions that failed in any stage.
    """

    samples: int
    lost: int
    duplicated: int
    changed: int
    largest: float
    other_parts: int
    failed: frozenset[int]

    @property
    def complete(self) -> bool:
        """Every sample is here once."""
        return not self.lost and not self.duplicated


def difference(disturbed: Output, undisturbed: Output, failing: Collection[int] = ()) -> Difference:
    """Compare predictions, maps and scores of the latest runs of two outputs, row by row.

    Args:
        disturbed: what is looked at.
        undisturbed: how it should be.
        failing: positions that are to have no row in the first.
    """
    here, there = _variants(disturbed), _variants(undisturbed)
    counts: Counter[str] = Counter()
    largest, parts = 0.0, (set[str](), set[str]())
    for name, path in there.items():
        rows, expected = _rows(disturbed, here.get(name)), _rows(undisturbed, path)
        for output, where, found in zip((disturbed, undisturbed), (here.get(name), path), parts, strict=True):
            found |= {f"{name} {part.file}" for part in (output.parts(where) if where else ())}
        for position in rows.keys() | expected.keys():
            one = rows.get(position, [])
            other = [] if position in failing else expected.get(position, [])
            counts["samples"] += bool(other)
            counts["lost"] += len(one) < len(other)
            counts["duplicated"] += len(one) > len(other)
            if len(one) == len(other):
                away = max(
                    (_deviation(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in b), default=0
                )
                counts["changed"] += away > 0
                largest = max(largest, away)
    failed = disturbed.failures(here.values())["position"].to_pylist()
    return Difference(
        counts["samples"],
        counts["lost"],
        counts["duplicated"],
        counts["changed"],
        largest,
        len(parts[0] ^ parts[1]),
        frozenset(failed),
    )


def _variants(output: Output) -> dict[tuple[str, ...], str]:
    """Folders of the latest run, by what they are: fingerprints differ where the images differ."""
    keys = ("stage", "model", "method", "metric")
    found = [one for one in output.run()["variants"] if one["stage"] in DATASETS]
    return {tuple(str(one[key]) for key in keys): one["path"] for one in found}


def _rows(output: Output, path: str | None) -> Mapping[int, list[dict[str, Any]]]:
    """Rows by position, in the order of their measures."""
    table = output.read(path) if path else None
    if table is None:
        return {}
    columns: dict[str, list[Any]] = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        tensors = isinstance(column.type, pa.FixedShapeTensorType)
        columns[name] = list(column.to_numpy_ndarray()) if tensors else column.to_pylist()
    rows = defaultdict(list)
    for number, position in enumerate(columns["position"]):
        rows[position].append({name: values[number] for name, values in columns.items()})
    for same in rows.values():
        same.sort(key=lambda row: str(row.get("measure")))
    return rows


def _deviation(one: Any, other: Any) -> float:
    """0 for the same, the largest difference of numbers, and infinity for what is not alike at all."""
    if isinstance(one, np.ndarray | list) and isinstance(other, np.ndarray | list):
        if len(one) != len(other):
            return float("inf")
        if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
            return float(np.abs(one.astype(np.float64) - other).max(initial=0))
        return max((_deviation(a, b) for a, b in zip(one, other, strict=True)), default=0)
    if isinstance(one, float) and isinstance(other, float):
        return 0.0 if one == other or (one != one and other != other) else abs(one - other)
    return 0.0 if one == other else float("inf")


@dataclass(frozen=True, slots=True)
class LogLine:
    """An event of a unit, from a run's log."""

    seconds: float
    event: str
    run: str
    unit: Range


def log_lines(log: Path) -> list[LogLine]:
    """The events of units in a log, in order. A line that a kill cut off does not count."""
    found = []
    for text in log.read_text().splitlines() if log.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if "unit" in line:
            start, stop = line["unit"].split("-")
            seconds = datetime.fromisoformat(line["time"]).timestamp()
            found.append(LogLine(seconds, line["event"], line["run"], (line["variant"], int(start), int(stop))))
    return found


def computed_twice(lines: Collection[LogLine]) -> list[Range]:
    """Units that were reported as committed more than once, over all runs of a log."""
    counts = Counter(line.unit for line in lines if line.event == "done")
    return [unit for unit, count in counts.items() if count > 1]


def in_flight(lines: Collection[LogLine], committed: Collection[str]) -> set[Range]:
    """Units that were handed out, and of which no marker speaks."""
    there = set(ranges(committed))
    started = {line.unit for line in lines if line.event == "started"}
    return {unit for unit in started - there if not _covered(unit, there)}


def _covered(unit: Range, there: Collection[Range]) -> bool:
    variant, start, stop = unit
    inside = [(low, high) for name, low, high in there if name == variant and low >= start and high <= stop]
    return sum(high - low for low, high in inside) == stop - start

"""The figures of a run as tables: Arrow and CSV for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipeline.report.finding import Findings
from pipeline.report.record import RunRecord
from pipeline.retrain.estimate import Estimate
from pipeline.retrain.grid import Grid
from pipeline.retrain.summary import Area, Benchmark, Point
from pipeline.stages.summarise import Summary

_WHAT = [("model", pa.string()), ("metric", pa.string()), ("measure", pa.string()), ("higher_is_better", pa.bool_())]

SUMMARY = pa.schema(
    [
        ("model", pa.string()),
        ("method", pa.string()),
        *_WHAT[1:],
        ("over", pa.string()),
        ("n", pa.int64()),
        ("missing", pa.int64()),
        ("mean", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("vertical", pa.string()),
        ("horizontal", pa.string()),
        ("axis_shares", pa.list_(pa.float64())),
        ("axis_names", pa.list_(pa.string())),
        ("curve", pa.list_(pa.float64())),
    ]
)
COMPARISONS = pa.schema(
    [
        *_WHAT,
        ("family", pa.string()),
        ("first", pa.string()),
        ("second", pa.string()),
        ("n", pa.int64()),
        ("difference", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("p", pa.float64()),
        ("corrected", pa.float64()),
        ("share", pa.float64()),
        ("better", pa.string()),
    ]
)
RANKS = pa.schema(
    [
        ("model", pa.string()),
        ("method", pa.string()),
        ("control", pa.bool_()),
        ("metric", pa.string()),
        ("measure", pa.string()),
        ("rank", pa.float64()),
        ("among", pa.int64()),
        ("sample_rank", pa.float64()),
        ("samples", pa.int64()),
        ("mean_rank", pa.float64()),
    ]
)
RETRAIN_SUMMARY = pa.schema(
    [
        ("model", pa.string()),
        ("network", pa.string()),
        ("kind", pa.string()),
        ("method", pa.string()),
        ("control", pa.bool_()),
        ("figure", pa.string()),
        ("fraction", pa.float64()),
        *[
            (name if part == "mean" else f"{name}_{part}", pa.int64() if part == "n" else pa.float64())
            for name in ("accuracy", "drop", "gain")
            for part in ("n", "mean", "low", "high")
        ],
        ("standing", pa.string()),
    ]
)
AGREEMENT = pa.schema(
    [
        ("model", pa.string()),
        ("first_metric", pa.string()),
        ("first_measure", pa.string()),
        ("second_metric", pa.string()),
        ("second_measure", pa.string()),
        ("methods", pa.int64()),
        ("spearman", pa.float64()),
        ("kendall", pa.float64()),
        ("samples", pa.int64()),
        ("sample_spearman", pa.float64()),
    ]
)


def figure_tables(record: RunRecord, findings: Findings) -> dict[str, pa.Table]:
    """By name: `summary` with the mean curves, `comparisons`, `ranks`, `agreement`; each says whose run it is."""
    tables = {
        "summary": pa.Table.from_pylist([_summary_row(one) for one in record.summary], schema=SUMMARY),
        "comparisons": _table(findings.comparisons, COMPARISONS),
        "ranks": _table(findings.ranks, RANKS),
        "agreement": _table(findings.agreement, AGREEMENT),
    }
    return {name: _signed(name, table, record) for name, table in tables.items()}


def retrain_figure_tables(record: RunRecord, grid: Grid, found: Sequence[Benchmark]) -> dict[str, pa.Table]:
    """By name: `retrain`, a row a trained cell; `retrain_summary`, a row a method and fraction, and one of its area.

    The summary has the figure `accuracy` at a fraction and the figure `area` without one; the clean arm has no method,
    and the fraction 0. `drop` is the loss against the clean arm, `gain` by how much it is better than random.
    """
    summary = pa.Table.from_pylist([row for one in found for row in _retrain_rows(one)], schema=RETRAIN_SUMMARY)
    tables = {"retrain": grid.rows, "retrain_summary": summary}
    return {name: _signed(name, table, record) for name, table in tables.items()}


def arrow_file(table: pa.Table) -> pa.Buffer:
    """A table as an Arrow IPC file, which `pyarrow.feather` and pandas' `read_feather` open."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def csv_file(table: pa.Table) -> str:
    """A line a row, full precision, empty where there is no value; without the columns that hold curves."""
    columns = [field.name for field in table.schema if not _of_curve(field)]
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*(table[column].to_pylist() for column in columns), strict=True):
        writer.writerow([str(value).lower() if isinstance(value, bool) else value for value in row])
    return sink.getvalue()


def _retrain_rows(one: Benchmark) -> Iterator[dict[str, Any]]:
    what = {"model": one.model, "network": one.network, "kind": one.kind}
    if one.clean is not None:
        yield {**what, "control": False, "figure": "accuracy", "fraction": 0.0, **_parts("accuracy", one.clean)}
    for point in one.points:
        yield {**what, **_of(point, point.accuracy, one), "figure": "accuracy", "fraction": point.fraction}
    for area in one.areas:
        yield {**what, **_of(area, area.area, one), "figure": "area", "fraction": None}


def _of(found: Point | Area, accuracy: Estimate | None, one: Benchmark) -> dict[str, Any]:
    return {
        "method": found.method,
        "control": found.method == one.control,
        **_parts("accuracy", accuracy),
        **_parts("drop", found.drop),
        **_parts("gain", found.gain),
        "standing": found.standing,
    }


def _parts(name: str, one: Estimate | None) -> dict[str, Any]:
    if one is None:
        return {f"{name}_n": 0}
    return {f"{name}_n": one.n, name: one.mean, f"{name}_low": one.low, f"{name}_high": one.high}


def _signed(name: str, table: pa.Table, record: RunRecord) -> pa.Table:
    """With whose run it is."""
    return table.replace_schema_metadata({"heatline": json.dumps({"run": record.run, "table": name})})


def _of_curve(field: pa.Field) -> bool:
    nested = pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type)
    return nested or field.name in ("vertical", "horizontal")


def _table(rows: Iterable[object], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([{name: getattr(one, name) for name in schema.names} for one in rows], schema=schema)


def _summary_row(one: Summary) -> dict[str, Any]:
    shares: Sequence[object] = [point for point in one.axis if not isinstance(point, str)]
    names: Sequence[object] = [point for point in one.axis if isinstance(point, str)]
    return {**one.as_dict(), "axis_shares": shares, "axis_names": names, "curve": list(one.curve)}

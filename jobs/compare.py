"""Reruns that are compared: which runs, with which tolerance, and what a program is told."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from jobs.junit import Case
from jobs.left_out import LeftOut
from jobs.run_name import earlier_run, find_run
from jobs.tolerance import tolerance_trouble
from pipeline.errors import FatalError
from pipeline.report.change import Change
from pipeline.report.faithfulness import Column, figure, signed
from pipeline.report.pair import Run
from pipeline.report.record import RunRecord, read_record
from pipeline.report.rerun import Key, Rerun, compare_runs
from pipeline.store import Output


def find_reruns(before: str, after: str | None, left_out: LeftOut = lambda _: None) -> tuple[Run, Run] | None:
    """The two runs that a command names.

    Args:
        before, after: as `jobs.run_name.find_run`; without the second, the first is compared with the run before it.
        left_out: is told of records that cannot be read while that one is looked for.

    Returns:
        Both; None where one alone is named and no run came before it that `jobs.run_name.earlier_run` would take.

    Raises:
        FatalError: there is no such run, or it has no figures.
    """
    output, name = find_run(before)
    if after is not None:
        return open_run(output, name), open_run(*find_run(after))
    this, earlier = open_run(output, name), earlier_run(output, name, left_out)
    return (open_run(output, earlier), this) if earlier is not None else None


def open_run(output: Output, name: str) -> Run:
    """A run that has figures.

    Raises:
        FatalError: it has none, or its record cannot be read.
    """
    record = read_record(output, name, described=False)
    if not record.summary:
        raise FatalError(f"{output.uri}: run {name} has no figures to compare ({record.status or 'no status'})")
    return Run(output, record)


def compare(before: Run, after: Run, options: Sequence[str] = ()) -> tuple[Rerun, dict[str, float]]:
    """Compare two runs by the tolerances of the second one's spec, and those given beside it.

    Args:
        before, after: the runs.
        options: `METRIC=VALUE`, which go before the spec's.

    Returns:
        What moved, and the tolerances.

    Raises:
        FatalError: an option that is none.
    """
    tolerance = {**spec_tolerance(after.record), **_given(options, (before.record, after.record))}
    return compare_runs(before, after, tolerance), tolerance


def spec_tolerance(record: RunRecord) -> dict[str, float]:
    """The tolerances of a run's spec; a record of before there were any has none."""
    written = (record.spec.get("compare") or {}).get("tolerance") or {}
    return {str(name): float(value) for name, value in written.items()}


def check_tolerances(options: Sequence[str], run: str) -> None:
    """Tell of an option that is none already where there is nothing yet to compare a run with.

    Raises:
        FatalError: likewise.
    """
    if options:
        _given(options, (open_run(*find_run(run)).record,), "the run has no")


def _given(options: Sequence[str], records: Sequence[RunRecord], who: str = "neither run has") -> dict[str, float]:
    """The tolerances that options say, of figures that one of the runs has."""
    measures: dict[str, dict[str, None]] = {}
    for one in (one for record in records for one in record.summary):
        measures.setdefault(one.metric, {})[one.measure] = None
    found = {}
    for option in options:
        name, _, text = option.rpartition("=")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not name or not math.isfinite(value) or value < 0:
            raise FatalError(f"--tolerance {option}: expected METRIC=VALUE with a number of at least 0, as mar=0.01")
        if trouble := tolerance_trouble(name, measures, f"{who} figures of"):
            raise FatalError(f"--tolerance {option}: {trouble}")
        found[name] = value
    return found


def as_json(rerun: Rerun, outputs: tuple[str, str], tolerance: Mapping[str, float]) -> dict[str, Any]:
    """The comparison for programs.

    Args:
        rerun: the comparison.
        outputs: the outputs' URIs.
        tolerance: those that were used.
    """
    return {
        "before": _facts(rerun.before, outputs[0]),
        "after": _facts(rerun.after, outputs[1]),
        "same_data": rerun.same_data,
        "tolerance": dict(tolerance),
        "verdicts": dict(Counter(one.verdict for one in rerun.changes if not one.control)),
        "regressions": len(rerun.regressions),
        "rows": [{**asdict(one), "verdict": one.verdict, "regression": one.regression} for one in rerun.changes],
        "only_before": [_named(key) for key in rerun.only_before],
        "only_after": [_named(key) for key in rerun.only_after],
        "incomparable": [{**_named(key), "reason": reason} for key, reason in rerun.incomparable],
    }


def regression_count(rerun: Rerun) -> str:
    """How many regressions there are, in words."""
    count = len(rerun.regressions)
    return f"{count or 'no'} {'regression' if count == 1 else 'regressions'}"


def nothing_compared(rerun: Rerun) -> str:
    """Why two runs say nothing about each other, in words; empty where some figure of a method could be compared."""
    if any(not one.control for one in rerun.changes):
        return ""
    if rerun.incomparable:
        reasons = dict.fromkeys(reason for _, reason in rerun.incomparable)
        return f"nothing compared: {'; '.join(reasons)}"
    if rerun.changes:
        return "nothing compared: the runs have the random control alone in common"
    return "nothing compared: the runs have no figure in common"


def junit_cases(rerun: Rerun) -> list[Case]:
    """A case a figure that both runs have; a regression fails, what cannot be compared or has no value is skipped."""
    cases = [_case(one) for one in rerun.changes]
    for (model, method, metric, measure), reason in rerun.incomparable:
        cases.append(Case(model, f"{method} {Column(metric, measure, True).title}", skipped=reason))
    for keys, which in ((rerun.only_before, "first"), (rerun.only_after, "second")):
        for model, method, metric, measure in keys:
            reason = f"only in the {which} run"
            cases.append(Case(model, f"{method} {Column(metric, measure, True).title}", skipped=reason))
    return cases


def _case(one: Change) -> Case:
    name = f"{one.method} {measure_name(one)}"
    if one.regression:
        return Case(one.model, name, failure=describe(one))
    valueless = one.verdict == "unclear" and one.difference is None
    return Case(one.model, name, skipped=describe(one) if valueless else "")


def measure_name(one: Change) -> str:
    """A metric, and its measure where that has a name of its own."""
    return Column(one.metric, one.measure, one.higher_is_better).title


def describe(one: Change) -> str:
    """A change in a sentence's worth of words."""
    lost = f"; {missing(one)}" if one.lost and one.after is not None else ""
    if one.before is None or one.after is None or one.difference is None:
        return f"{number(one.before)} → {number(one.after)}: {one.note or 'not compared'}{lost}"
    text = f"{figure(one.before)} → {figure(one.after)}, {signed(one.difference)}"
    if one.low is not None and one.high is not None:
        text += f" [{signed(one.low)}, {signed(one.high)}]"
    if one.tolerance:
        text += f", tolerance {one.tolerance:g}"
    return f"{text}, {'higher' if one.higher_is_better else 'lower'} is better{lost}"


def number(mean: float | None) -> str:
    """A mean, or that there is none."""
    return "no value" if mean is None else figure(mean)


def missing(one: Change) -> str:
    """How many samples have no value, in words."""
    of = f" of {one.shared:,}" if one.shared else ""
    return f"{one.after_missing:,}{of} samples without a value, before {one.before_missing:,}"


def _facts(record: RunRecord, output: str) -> dict[str, Any]:
    return {
        "output": output,
        **{name: getattr(record, name) for name in ("run", "name", "status", "started", "samples")},
        "dataset_fingerprint": record.dataset_fingerprint,
    }


def _named(key: Key) -> dict[str, str]:
    return dict(zip(("model", "method", "metric", "measure"), key, strict=True))

"""`heatline compare`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.cli import FAILED, MISTAKE, OK
from jobs.compare import (
    as_json,
    check_tolerances,
    compare,
    find_reruns,
    junit_cases,
    measure_name,
    missing,
    nothing_compared,
    number,
    regression_count,
)
from jobs.console import counted, wide_console
from jobs.junit import write_junit
from jobs.left_out import left_out_warning
from pipeline.report.change import Change
from pipeline.report.faithfulness import Column, signed
from pipeline.report.pair import Run
from pipeline.report.rerun import Key, Rerun

_COLOURS = {"better": "green", "same": "bright_black", "worse": "red", "unclear": ""}
_LISTED = 12  # figures named one by one, of those that cannot be compared


@click.command()
@click.argument("before", metavar="RUN")
@click.argument("after", metavar="[RUN]", required=False)
@click.option(
    "--tolerance",
    "tolerances",
    multiple=True,
    metavar="METRIC=VALUE",
    help="by how much a metric may get worse; METRIC is a metric's id, 'METRIC MEASURE' or default; before the spec's",
)
@click.option("--all", "everything", is_flag=True, help="show also figures whose rows are the same in both runs")
@click.option("--junit", metavar="FILE", type=click.Path(path_type=Path), help="write a JUnit file, a case a figure")
@click.option("--json", "as_json_", is_flag=True, help="print the comparison as JSON")
def compare_command(
    before: str, after: str | None, tolerances: tuple[str, ...], everything: bool, junit: Path | None, as_json_: bool
) -> int:
    """Compare two runs figure by figure; exit code 1 where the second is worse than is tolerated.

    RUN is an output (its latest run), OUTPUT@RUN, or a run's record (OUTPUT/runs/NAME.json); the earlier one comes
    first. One RUN alone is compared with the run of the same job before it, the job being told by the spec's name.

    A figure is worse (or better) where the whole 95 % interval of its difference lies past the tolerance, which is 0
    unless the spec's compare.tolerance or --tolerance says otherwise; same where all of it lies within. Of many figures
    that differ by chance alone one in forty is called worse: set a tolerance. Worse is also a figure that has no value
    any more, and one of which clearly more samples have none: more than 1 % of them, and six at least.

    Figures over other data, or set otherwise, are not compared; where none is left, the exit code is 2.
    """
    unreadable: list[str] = []
    found = find_reruns(before, after, unreadable.append)
    if unreadable:
        click.echo(left_out_warning(unreadable), err=True)
    if found is None:
        check_tolerances(tolerances, before)
        if junit is not None:
            write_junit(junit, "heatline compare", [])
        nothing = "nothing to compare with yet: no run of this job, and none with a figure in common, came before"
        click.echo(json.dumps(None) if as_json_ else nothing)
        return OK
    rerun, tolerance = compare(*found, tolerances)
    if junit is not None:
        suite = f"heatline compare {rerun.before.run} {rerun.after.run}"
        write_junit(junit, suite, junit_cases(rerun), rerun.after.started)
    if as_json_:
        click.echo(json.dumps(as_json(rerun, (found[0].output.uri, found[1].output.uri), tolerance), indent=1))
    else:
        _print(rerun, found, tolerance, everything)
    if nothing_compared(rerun):
        return MISTAKE
    return FAILED if rerun.regressions else OK


def _print(rerun: Rerun, runs: tuple[Run, Run], tolerance: Mapping[str, float], everything: bool) -> None:
    console = wide_console()
    for word, run in zip(("before", "after "), runs, strict=True):
        console.print(f"{word} {run.record.run}  {run.output.uri}", markup=False, soft_wrap=True)
    if not rerun.same_data and any(one.pairing == "paired" for one in rerun.changes):
        console.print("The data sets differ: samples are paired by their ids.")
    shown = [one for one in rerun.changes if everything or one.pairing != "same rows"]
    for model in dict.fromkeys(one.model for one in shown):
        console.print()
        console.print(_table(model, [one for one in shown if one.model == model]))
    if shown:
        console.print()
    _print_notes(console, rerun, len(rerun.changes) - len(shown))
    _print_keys(console, "only in the first run", rerun.only_before)
    _print_keys(console, "only in the second run", rerun.only_after)
    for reason in dict.fromkeys(reason for _, reason in rerun.incomparable):
        _print_keys(console, f"not compared, {reason}", [key for key, why in rerun.incomparable if why == reason])
    used = {name: value for name, value in tolerance.items() if value}
    if used:
        tolerances = ", ".join(f"{name} {value:g}" for name, value in used.items())
        console.print(f"Tolerance: {tolerances}.", markup=False, soft_wrap=True)
    console.print(_verdicts(rerun), markup=False, soft_wrap=True)


def _table(model: str, changes: Sequence[Change]) -> Table:
    """A line a figure, under its method, narrow enough for a terminal of 80 columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), title=escape(model), title_justify="left")
    table.add_column("", overflow="fold")
    table.add_column("")
    for heading in ("before", "after", "difference, 95 % interval", "n"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for method in dict.fromkeys(one.method for one in changes):
        mine = [one for one in changes if one.method == method]
        table.add_row(escape(method) + (" (control)" if mine[0].control else ""))
        for one in mine:
            colour = "" if one.control else _COLOURS[one.verdict]
            table.add_row(
                f"  {escape(measure_name(one))}",
                "↑" if one.higher_is_better else "↓",
                number(one.before),
                number(one.after),
                escape(_difference(one)),
                f"{one.before_n:,} | {one.after_n:,}" if one.pairing == "unpaired" else f"{one.pairs:,}",
                f"[{colour}]{one.verdict}[/]" if colour else one.verdict,
            )
    return table


def _difference(one: Change) -> str:
    if one.difference is None:
        return "–"
    interval = "" if one.low is None or one.high is None else f" [{signed(one.low)}, {signed(one.high)}]"
    return f"{signed(one.difference)}{interval}"


def _print_notes(console: Console, rerun: Rerun, hidden: int) -> None:
    if hidden:
        many = f"{hidden} figures are" if hidden > 1 else "1 figure is"
        console.print(f"{many} of the same rows in both runs, and not shown (--all).")
    if any(one.pairing == "paired" and max(one.before_n, one.after_n) > one.pairs for one in rerun.changes):
        console.print("n counts the samples that both runs have; a run's mean is over all of its own.")
    unpaired = [one for one in rerun.changes if one.pairing == "unpaired"]
    for note, valueless in dict.fromkeys((one.note, one.difference is None) for one in unpaired if one.note):
        count = sum((one.note, one.difference is None) == (note, valueless) for one in unpaired)
        if valueless:
            many = f"{count} figures have" if count > 1 else "1 figure has"
            console.print(f"{many} no difference: {note}.", markup=False)
        else:
            many = f"{count} figures are compared by their" if count > 1 else "1 figure is compared by its"
            console.print(f"{many} means' intervals: {note}.", markup=False)
    _print_lines(
        console,
        "clearly fewer samples with a value",
        [
            f"{one.model} {one.method} {measure_name(one)}: {missing(one)}"
            for one in rerun.changes
            if one.lost and one.after is not None
        ],
    )
    if rerun.after.lost:
        console.print(f"The second run gave up {counted(len(rerun.after.lost), 'unit')}; its page says which.")
    moved = max((one.retargeted for one in rerun.changes), default=0)
    if moved:
        console.print(f"Of up to {moved} samples another class is explained than before.")
    if any(one.tolerance is None for one in rerun.changes):
        measured = dict.fromkeys(one.metric for one in rerun.changes if one.tolerance is None)
        console.print(
            f"{', '.join(measured)}: what the machine has a part in has no verdict without a tolerance of its own.",
            markup=False,
        )


def _print_keys(console: Console, what: str, keys: Sequence[Key]) -> None:
    """Figures by model and method."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for model, method, metric, measure in keys:
        grouped.setdefault((model, method), []).append(Column(metric, measure, True).title)
    lines = [f"{model} {method}: {', '.join(measures)}" for (model, method), measures in grouped.items()]
    _print_lines(console, what, lines)


def _print_lines(console: Console, what: str, lines: Sequence[str]) -> None:
    if lines:
        console.print(f"{what}:", markup=False)
    for line in lines[:_LISTED]:
        console.print(f"  {line}", markup=False, soft_wrap=True)
    if len(lines) > _LISTED:
        console.print(f"  and {len(lines) - _LISTED} more")


def _verdicts(rerun: Rerun) -> str:
    if nothing := nothing_compared(rerun):
        return nothing
    counts = Counter(one.verdict for one in rerun.changes if not one.control)
    controls = sum(one.control for one in rerun.changes)
    aside = f" ({counted(controls, 'figure')} of the control aside)" if controls else ""
    told = ", ".join(f"{counts[name]} {name}" for name in ("better", "unclear", "same"))
    return f"{regression_count(rerun)}; {told}{aside}"

"""Remove and retrain as the page and the Markdown show it: accuracy by method and share, against clean and random."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.report.faithfulness import Verdict
from pipeline.report.record import CONTROL, RunRecord
from pipeline.retrain.conditions import Conditions, conditions
from pipeline.retrain.estimate import Estimate, Standing, student
from pipeline.retrain.grid import Grid
from pipeline.retrain.summary import Area, Benchmark, Point, measures

TITLES: Mapping[str, str] = {"roar": "Remove and retrain", "kar": "Keep and retrain"}

_ENOUGH = 5  # repeats, as Hooker et al. take; with fewer the page says what that costs
_FINE = 1000  # test images from which on a second decimal of a per cent says something


@dataclass(frozen=True, slots=True)
class Percent:
    """An estimate in per cent.

    Attributes:
        mean: in one or two decimals; of a difference with its sign.
        half: half its interval; empty where one repeat has none.
        n: repeats.
    """

    mean: str
    half: str
    n: int

    def __str__(self) -> str:
        return f"{self.mean} ± {self.half}" if self.half else self.mean


@dataclass(frozen=True, slots=True)
class RetrainCell:
    """A method at one share, or over all of them.

    Attributes:
        accuracy: on masked test images, or the area under it.
        best: whether it is the best mean of its column, and better than random's.
        drop: the clean arm's accuracy − its own.
        gain: by how much it is better than random.
        standing: what the gain says.
        short: repeats that are missing.
    """

    accuracy: Percent
    best: bool
    drop: Percent | None
    gain: Percent | None
    standing: Standing | None
    short: int


@dataclass(frozen=True, slots=True)
class RetrainRow:
    """A method, with a cell a share and one of the area; None where nothing is trained.

    Attributes:
        unranked: images that it has no order of the pixels of, and that are masked at random.
    """

    method: str
    cells: tuple[RetrainCell | None, ...]
    area: RetrainCell | None
    unranked: int


@dataclass(frozen=True, slots=True)
class RetrainTable:
    """The accuracies of one benchmark.

    Attributes:
        model, network, kind: whose maps, what was trained, `roar` or `kar`.
        heads: the shares, in per cent.
        repeats: how many trainings each arm is to have.
        clean: accuracy of the clean arm; None where none is trained.
        rows: the methods in the order of the spec.
        control: the random arm; None where there is none.
        note: what the number of repeats means; empty with enough of them.
    """

    model: str
    network: str
    kind: str
    heads: tuple[str, ...]
    repeats: int
    clean: Percent | None
    rows: tuple[RetrainRow, ...]
    control: RetrainRow | None
    note: str

    @property
    def all_rows(self) -> tuple[RetrainRow, ...]:
        """The methods, the control last."""
        return self.rows if self.control is None else (*self.rows, self.control)

    @property
    def better(self) -> str:
        """Which way accuracy is better."""
        return "↑ higher is better" if self.kind == "kar" else "↓ lower is better"


@dataclass(frozen=True, slots=True)
class Training:
    """What was trained.

    Attributes:
        title: of the section.
        kind, fill: of the benchmark.
        trained, planned: cells.
        missing: of each arm that lacks some, its name, how many it lacks and how many it is to have.
        conditions: what they were trained with.
    """

    title: str
    kind: str
    fill: str
    trained: int
    planned: int
    missing: tuple[tuple[str, int, int], ...]
    conditions: Conditions


def controls(record: RunRecord) -> set[str]:
    """Methods of the run that know nothing of image or model."""
    return {method for method in record.methods if record.programs.get(method, method) == CONTROL}


def training(record: RunRecord, grid: Grid) -> Training | None:
    """What was trained; None for a run without retraining."""
    planned = next((one.cell for one in record.variants if one.stage == "retrain" and one.cell), None)
    if planned is None:
        return None
    arms, missing = (Counter(cell.method for cell in cells) for cells in (grid.cells, grid.missing))
    return Training(
        title=TITLES.get(planned.kind, planned.kind),
        kind=planned.kind,
        fill=planned.fill,
        trained=grid.rows.num_rows,
        planned=len(grid.cells),
        missing=tuple((arm or "clean", missing[arm], count) for arm, count in arms.items() if missing[arm]),
        conditions=conditions(grid),
    )


def retrain_tables(found: Sequence[Benchmark], grid: Grid) -> list[RetrainTable]:
    """A table a benchmark."""
    trained = conditions(grid)
    decimals = 2 if trained.test_images[0] >= _FINE else 1
    return [_table(one, decimals, trained.unranked) for one in found]


def retrain_verdicts(found: Sequence[Benchmark]) -> dict[tuple[str, str, str, str], Verdict]:
    """By model, metric, measure and method, how the area fares against random, repeat by repeat."""
    said: dict[Standing | None, Verdict] = {"better": "", "worse": "worse than random"}
    return {
        (one.model, one.kind, measure, area.method): said.get(area.standing, "not clearly better than random")
        for one, measure in zip(found, measures(found), strict=True)
        for area in one.areas
        if one.control is not None and area.method != one.control
    }


def percent(one: Estimate | None, decimals: int, *, sign: bool = False) -> Percent | None:
    """An estimate as text, a difference with its sign."""
    if one is None:
        return None
    size = f"{100 * abs(one.mean):.{decimals}f}"
    negative = one.mean < 0 and float(size) != 0
    mean = ("−" if negative else "+" if sign and float(size) != 0 else "") + size
    return Percent(mean, "" if one.half is None else f"{100 * one.half:.{decimals}f}", one.n)


def _table(one: Benchmark, decimals: int, unranked: Mapping[str, int]) -> RetrainTable:
    points = {(point.method, point.fraction): point for point in one.points}
    areas = {area.method: area for area in one.areas}
    best = {fraction: _best(one, [points.get((name, fraction)) for name in areas]) for fraction in one.fractions}
    best_area = _best(one, list(areas.values()))

    def row(method: str) -> RetrainRow:
        found = [points.get((method, fraction)) for fraction in one.fractions]
        return RetrainRow(
            method,
            tuple(
                _cell(point, point.accuracy, one, decimals, best=method == best[point.fraction]) if point else None
                for point in found
            ),
            _cell(areas[method], areas[method].area, one, decimals, best=method == best_area),
            unranked.get(method, 0),
        )

    return RetrainTable(
        model=one.model,
        network=one.network,
        kind=one.kind,
        heads=tuple(f"{100 * fraction:g} %" for fraction in one.fractions),
        repeats=one.repeats,
        clean=percent(one.clean, decimals),
        rows=tuple(row(method) for method in areas if method != one.control),
        control=row(one.control) if one.control is not None else None,
        note=_note(one.repeats),
    )


def _cell(
    found: Point | Area, accuracy: Estimate | None, one: Benchmark, decimals: int, *, best: bool
) -> RetrainCell | None:
    shown = percent(accuracy, decimals)
    if shown is None:
        return None
    return RetrainCell(
        accuracy=shown,
        best=best,
        drop=percent(found.drop, decimals, sign=True),
        gain=percent(found.gain, decimals, sign=True),
        standing=found.standing,
        short=one.repeats - shown.n,
    )


def _best(one: Benchmark, found: Sequence[Point | Area | None]) -> str | None:
    """The method with the best mean, where there are two or more, and where its mean is better than random's."""
    means = {}
    for arm in found:
        accuracy = arm.accuracy if isinstance(arm, Point) else arm.area if arm is not None else None
        if arm is not None and accuracy is not None:
            means[arm.method] = accuracy.mean if one.higher_is_better else -accuracy.mean
    random = means.pop(one.control or "", float("-inf"))
    leader = max(means, key=lambda method: means[method], default=None)
    return leader if leader is not None and len(means) > 1 and means[leader] > random else None


def _note(repeats: int) -> str:
    if repeats == 1:
        return (
            "There is one repeat, so that there are no intervals and nothing is told apart from random: "
            f"that takes two repeats, and Hooker et al. take {_ENOUGH}."
        )
    if repeats < _ENOUGH:
        return (
            f"With {repeats} repeats an interval reaches {student(repeats):.1f} standard errors to each side "
            f"({student(_ENOUGH):.1f} with {_ENOUGH}), so that only large differences are clear."
        )
    return ""

"""What trained cells say: accuracy over fractions and repeats, against the clean arm and the random one."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.retrain.estimate import Estimate, Standing, estimate, standing
from pipeline.retrain.grid import GridCell
from pipeline.stages.summarise import Summary

ACCURACY = "accuracy"
READINGS: Mapping[str, str] = {
    "roar": (
        "a network trained anew on images without the pixels that the map ranks highest should fail on test images "
        "masked alike: area under its accuracy over the shares removed (lower is better)"
    ),
    "kar": (
        "a network trained anew on images of which only the pixels are left that the map ranks highest should do well "
        "on test images masked alike: area under its accuracy over the shares kept (higher is better)"
    ),
}
"""How the figures of each kind are read, a clause for the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """How an accuracy, or an area, stands against the clean and the random arm.

    Attributes:
        drop: the clean arm's − its own, over repeats that both have; None where there are none. The clean arm's area is
            its accuracy.
        gain: by how much it is better than random, likewise: random's − its own for `roar`, its own − random's for
            `kar`; None for random itself.
    """

    drop: Estimate | None
    gain: Estimate | None

    @property
    def standing(self) -> Standing | None:
        """How it fares against random (`standing`)."""
        return standing(self.gain)


@dataclass(frozen=True, slots=True)
class Point(Compared):
    """A method at a fraction.

    Attributes:
        method, fraction: which.
        accuracy: over all its repeats.
        drop, gain: as of `Compared`, at this fraction.
    """

    method: str
    fraction: float
    accuracy: Estimate


@dataclass(frozen=True, slots=True)
class Area(Compared):
    """A method over all fractions, by the area under its accuracy.

    Attributes:
        method: which.
        area: over repeats that have every fraction; None where there are none.
        incomplete: repeats without all fractions.
        drop, gain: as of `Compared`, between areas.
    """

    method: str
    area: Estimate | None
    incomplete: int


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The trainings of one network on the maps of one model.

    Attributes:
        model, network, kind: which.
        control: the random arm's method; None where there is none.
        fractions: ascending.
        repeats: how many trainings each arm is to have.
        clean: accuracy of the clean arm; None where none is trained.
        points: by method and fraction, in their order; those without a training are left out.
        areas: one a method.
    """

    model: str
    network: str
    kind: str
    control: str | None
    fractions: tuple[float, ...]
    repeats: int
    clean: Estimate | None
    points: tuple[Point, ...]
    areas: tuple[Area, ...]

    @property
    def higher_is_better(self) -> bool:
        """Which way accuracy points."""
        return self.kind == "kar"


def benchmarks(cells: Sequence[GridCell], controls: Collection[str]) -> list[Benchmark]:
    """Sum the cells up, a benchmark for each model, network and kind, in their order.

    The arms of a repeat start from the same weights and see their images in the same order, so that differences are
    taken repeat by repeat.

    Args:
        cells: of a run, trained or not.
        controls: methods that know nothing of image or model.

    Source: Hooker et al. 2019, "A benchmark for interpretability methods in deep neural networks": mean test accuracy
        over repeated trainings, against random at the same fraction. Interval and area are ours.
    """
    groups: dict[tuple[str, str, str], list[GridCell]] = {}
    for cell in cells:
        groups.setdefault((cell.model, cell.network, cell.kind), []).append(cell)
    return [_benchmark(*key, group, controls) for key, group in groups.items()]


def area_under(fractions: Sequence[float], accuracies: Sequence[float]) -> float:
    """Mean height of the curve: its trapezoids, divided by the range of fractions; of one fraction its accuracy."""
    if len(fractions) == 1:
        return accuracies[0]
    heights = [(left + right) / 2 for left, right in pairwise(accuracies)]
    widths = [right - left for left, right in pairwise(fractions)]
    return sum(height * width for height, width in zip(heights, widths, strict=True)) / (fractions[-1] - fractions[0])


def retrain_summary(found: Sequence[Benchmark]) -> list[Summary]:
    """The areas, one row a method, as measures beside those of metrics: over repeats in the place of samples."""
    rows = []
    for one, measure in zip(found, measures(found), strict=True):
        for area in one.areas:
            points = [point for point in one.points if point.method == area.method]
            rows.append(
                Summary(
                    model=one.model,
                    method=area.method,
                    metric=one.kind,
                    measure=measure,
                    higher_is_better=one.higher_is_better,
                    n=area.area.n if area.area else 0,
                    missing=area.incomplete,
                    mean=area.area.mean if area.area else None,
                    low=area.area.low if area.area else None,
                    high=area.area.high if area.area else None,
                    axis=tuple(point.fraction for point in points),
                    curve=tuple(point.accuracy.mean for point in points),
                    vertical="test accuracy after retraining",
                    horizontal=horizontal(one.kind),
                    by_sample=False,
                    over="repeats",
                )
            )
    return rows


def measures(found: Sequence[Benchmark]) -> list[str]:
    """What each benchmark's figure is called beside those of metrics; a model's second network is another measure."""
    models = [(one.model, one.kind) for one in found]
    return [
        ACCURACY if models.count(model) == 1 else f"{ACCURACY} {one.network}"
        for one, model in zip(found, models, strict=True)
    ]


def horizontal(kind: str) -> str:
    """What a curve's horizontal axis shows."""
    return f"pixels {'kept' if kind == 'kar' else 'removed'}, most relevant first (%)"


@dataclass(frozen=True, slots=True)
class _Arm:
    """Accuracies or areas by repeat, and the standard deviation that one of them has by rounding alone.

    An accuracy over m images moves in steps of 1 / m. Repeats that agree to the image are common on a few hundred, and
    would have an interval of no length.
    """

    values: Mapping[int, float]
    rounding: float

    def estimate(self) -> Estimate | None:
        """Mean and interval; None without a repeat."""
        return estimate(list(self.values.values()), self.rounding) if self.values else None

    def less(self, other: _Arm) -> Estimate | None:
        """Its own − the other's, over repeats that both have."""
        both = {repeat: value - other.values[repeat] for repeat, value in self.values.items() if repeat in other.values}
        return _Arm(both, math.hypot(self.rounding, other.rounding)).estimate()


def _benchmark(model: str, network: str, kind: str, cells: Sequence[GridCell], controls: Collection[str]) -> Benchmark:
    methods = list(dict.fromkeys(cell.method for cell in cells if cell.method is not None))
    # From the plan, not from what is trained: an area over fewer fractions would be another figure.
    fractions = tuple(sorted({cell.fraction for cell in cells if cell.method is not None}))
    repeats = len({cell.repeat for cell in cells})
    clean = _arm(cell for cell in cells if cell.method is None)
    arms = {
        (method, fraction): _arm(cell for cell in cells if (cell.method, cell.fraction) == (method, fraction))
        for method in methods
        for fraction in fractions
    }
    areas = {method: _area(fractions, [arms[method, fraction] for fraction in fractions]) for method in methods}
    control = next((method for method in methods if method in controls), None)

    def compared(method: str, mine: _Arm, random: _Arm | None) -> dict[str, Estimate | None]:
        gain = None
        if random is not None and method != control:
            gain = mine.less(random) if kind == "kar" else random.less(mine)
        return {"drop": clean.less(mine), "gain": gain}

    return Benchmark(
        model=model,
        network=network,
        kind=kind,
        control=control,
        fractions=fractions,
        repeats=repeats,
        clean=clean.estimate(),
        points=tuple(
            Point(method, fraction, accuracy, **compared(method, arm, arms.get((control or "", fraction))))
            for (method, fraction), arm in arms.items()
            if (accuracy := arm.estimate()) is not None
        ),
        areas=tuple(
            Area(
                method, mine.estimate(), repeats - len(mine.values), **compared(method, mine, areas.get(control or ""))
            )
            for method, mine in areas.items()
        ),
    )


def _arm(cells: Iterable[GridCell]) -> _Arm:
    """Accuracy of the trained cells of an arm, in the order of repeats."""
    trained = sorted((cell for cell in cells if cell.accuracy is not None), key=lambda cell: cell.repeat)
    images = min((cell.test_images for cell in trained), default=0)
    # A uniform error of one step has this standard deviation.
    rounding = 1 / images / math.sqrt(12) if images else 0.0
    return _Arm({cell.repeat: cell.accuracy for cell in trained if cell.accuracy is not None}, rounding)


def _area(fractions: Sequence[float], arms: Sequence[_Arm]) -> _Arm:
    """By repeat the area of a method with an arm a fraction; repeats that lack one have none."""
    weights = [area_under(fractions, [float(one == other) for other in fractions]) for one in fractions]
    areas = {
        repeat: area_under(fractions, [arm.values[repeat] for arm in arms])
        for repeat in arms[0].values
        if all(repeat in arm.values for arm in arms)
    }
    return _Arm(areas, math.hypot(*(weight * arm.rounding for weight, arm in zip(weights, arms, strict=True))))

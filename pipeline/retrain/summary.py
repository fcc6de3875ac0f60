"""What trained cells say: accuracy over fractions and repeats, against the clean arm and the random one."""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Point:
    """A method at a fraction.

    Attributes:
        method, fraction: which.
        accuracy: over all its repeats.
        drop: the clean arm's accuracy − its own, over repeats that both have; None where there are none.
        gain: by how much it is better than random at this fraction, likewise: random's accuracy − its own for `roar`,
            its own − random's for `kar`; None for random itself.
    """

    method: str
    fraction: float
    accuracy: Estimate
    drop: Estimate | None
    gain: Estimate | None

    @property
    def standing(self) -> Standing | None:
        """How it fares against random (`standing`)."""
        return standing(self.gain)


@dataclass(frozen=True, slots=True)
class Area:
    """A method over all fractions, by the area under its accuracy.

    Attributes:
        method: which.
        area: over repeats that have every fraction; None where there are none.
        incomplete: repeats without all fractions.
        drop, gain: as of a `Point`, between areas; the clean arm's is its accuracy.
    """

    method: str
    area: Estimate | None
    incomplete: int
    drop: Estimate | None
    gain: Estimate | None

    @property
    def standing(self) -> Standing | None:
        """How it fares against random (`standing`)."""
        return standing(self.gain)


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


def _benchmark(model: str, network: str, kind: str, cells: Sequence[GridCell], controls: Collection[str]) -> Benchmark:
    clean = _by_repeat(cell for cell in cells if cell.method is None)
    methods = list(dict.fromkeys(cell.method for cell in cells if cell.method is not None))
    # From the plan, not from what is trained: an area over fewer fractions would be another figure.
    fractions = tuple(sorted({cell.fraction for cell in cells if cell.method is not None}))
    repeats = len({cell.repeat for cell in cells})
    arms = {
        (method, fraction): _by_repeat(cell for cell in cells if (cell.method, cell.fraction) == (method, fraction))
        for method in methods
        for fraction in fractions
    }
    areas = {method: _areas(fractions, [arms[method, fraction] for fraction in fractions]) for method in methods}
    control = next((method for method in methods if method in controls), None)
    sign = 1.0 if kind == "kar" else -1.0

    def gain(method: str, mine: Mapping[int, float], random: Mapping[int, float]) -> Estimate | None:
        return None if method == control else _difference(mine, random, sign)

    return Benchmark(
        model=model,
        network=network,
        kind=kind,
        control=control,
        fractions=fractions,
        repeats=repeats,
        clean=estimate(list(clean.values())) if clean else None,
        points=tuple(
            Point(
                method,
                fraction,
                estimate(list(arm.values())),
                drop=_difference(arm, clean, -1.0),
                gain=gain(method, arm, arms[control, fraction] if control is not None else {}),
            )
            for (method, fraction), arm in arms.items()
            if arm
        ),
        areas=tuple(
            Area(
                method,
                estimate(list(mine.values())) if mine else None,
                incomplete=repeats - len(mine),
                drop=_difference(mine, clean, -1.0),
                gain=gain(method, mine, areas[control] if control is not None else {}),
            )
            for method, mine in areas.items()
        ),
    )


def _by_repeat(cells: Iterable[GridCell]) -> dict[int, float]:
    """Accuracy of the trained ones of an arm, in the order of repeats."""
    found = {cell.repeat: cell.accuracy for cell in cells if cell.accuracy is not None}
    return {repeat: found[repeat] for repeat in sorted(found)}


def _areas(fractions: Sequence[float], arms: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """By repeat the area of a method with an arm a fraction; repeats that lack one have none."""
    return {
        repeat: area_under(fractions, [arm[repeat] for arm in arms])
        for repeat in arms[0]
        if all(repeat in arm for arm in arms)
    }


def _difference(mine: Mapping[int, float], other: Mapping[int, float], direction: float) -> Estimate | None:
    """direction · (mine − other) over repeats that both have; None where there are none."""
    both = [repeat for repeat in mine if repeat in other]
    return estimate([direction * (mine[repeat] - other[repeat]) for repeat in both]) if both else None

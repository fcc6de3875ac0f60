"""The curve engine's protocols against loops, closed forms and each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from small_models import linear_classifier, make_batch, small_classifier
from torch import Tensor

from pipeline.contracts import Batch, Context, Setting
from pipeline.fill import blurred
from pipeline.metrics import InsertionAccuracy, LeRF, MoRF, PerturbationCurve, PixelPerturbation
from pipeline.metrics.curve import CurvePoints, adaptive_curve, perturbation_curve, pixel_counts, scored, share_counts
from pipeline.metrics.reference import DatasetColour
from pipeline.models import Classifier
from pipeline.models.pass_counter import counting
from pipeline.noise import Noise
from pipeline.reduction import pixel_ranks

Case = tuple[Classifier, Batch, Tensor]


@pytest.fixture
def case() -> Case:
    model = small_classifier()
    batch = make_batch(model, 4)
    maps = Noise(2).normal("map", batch.ids, (1, 8, 8))
    maps[0, 0, :4] = 0.25  # ties
    return model, batch, maps


def fill_of(name: str, model: Classifier, batch: Batch, row: int) -> Tensor:
    image = batch.images[row]
    fills = {
        "black": torch.zeros_like(image),
        "white": torch.ones_like(image),
        "mean": model.mean[0].expand_as(image),
        "blur": blurred(model, batch.images)[row],
        "noise": Noise(5).uniform("fill", [batch.ids[row]], (3, 8, 8))[0],
        "value": torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1).expand_as(image),
    }
    return fills[name]


def slow_points(model: Classifier, image: Tensor, gone: Tensor, order: list[int], counts: list[int]) -> list[Tensor]:
    """Logits with the first pixels of an order taken away, by loops."""
    found = []
    for count in counts:
        changed = image.clone()
        for pixel in order[:count]:
            changed[:, pixel // 8, pixel % 8] = gone[:, pixel // 8, pixel % 8]
        found.append(model(changed[None])[0].detach())
    return found


def slow_order(relevance: Tensor, most_first: bool) -> list[int]:
    sign = -1 if most_first else 1
    return sorted(range(64), key=lambda pixel: (sign * relevance.flatten()[pixel].item(), pixel))


@pytest.mark.parametrize("fill", ["black", "white", "mean", "blur", "noise", "value"])
@pytest.mark.parametrize("start", ["image", "fill"])
@pytest.mark.parametrize("order", ["most_relevant_first", "least_relevant_first"])
@pytest.mark.parametrize(
    "output",
    ["probability", "logit", "correct", "probability_ratio", "logit_ratio", "probability_change", "logit_change"],
)
def test_a_curve_is_the_slow_one(case: Case, fill: str, start: str, order: str, output: str) -> None:
    model, batch, maps = case
    value = (0.1, 0.2, 0.3) if fill == "value" else None
    parameters: Any = {"fill": fill, "start": start, "order": order, "output": output, "value": value, "step": 13}
    metric = PerturbationCurve(**parameters)
    found = metric(model, batch, maps, Context(noise=Noise(5)))
    for row in range(4):
        target = int(batch.targets[row])
        gone, image = fill_of(fill, model, batch, row), batch.images[row]
        ends = (image, gone) if start == "image" else (gone, image)
        sequence = slow_order(maps[row], order == "most_relevant_first")
        logits = slow_points(model, *ends, sequence, [0, 13, 26, 39, 52, 64])
        clean = model(image[None])[0].detach()

        def value_of(one: Tensor, target: int = target, clean: Tensor = clean) -> float:
            if output == "correct":
                return float(one.argmax() == target)
            of, _, relation = output.partition("_")
            here, there = (F.softmax(x, 0)[target] if of == "probability" else x[target] for x in (one, clean))
            if relation == "ratio" and there <= 0:
                return math.nan
            return float({"": here, "ratio": here / there, "change": (here - there).abs() / abs(there)}[relation])

        curve = [value_of(one) for one in logits]
        np.testing.assert_allclose(found.curves["auc"][row], curve, atol=2e-5, rtol=1e-4)
        np.testing.assert_allclose(found.measures["auc"][row], np.trapezoid(curve, dx=1 / 5), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("metric", "most_first", "kept", "relation"),
    [
        (InsertionAccuracy(fractions=(0.1, 0.3, 1.0)), True, True, "correct"),
        (MoRF(fractions=(0.0, 0.05, 0.5)), True, False, "ratio"),
        (LeRF(fractions=(0.0, 0.05, 0.5)), False, False, "ratio"),
        (PixelPerturbation(fractions=(0.3, 0.9)), False, False, "change"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_preset_is_the_slow_protocol(case: Case, metric: Any, most_first: bool, kept: bool, relation: str) -> None:
    model, batch, maps = case
    found = metric(model, batch, maps)
    measure = {"correct": "accuracy"}.get(relation, relation)
    for row in range(4):
        target, image = int(batch.targets[row]), batch.images[row]
        black = torch.zeros_like(image)
        ends = (black, image) if kept else (image, black)
        counts = [math.floor(64 * share + 0.5) for share in metric.fractions]
        logits = slow_points(model, *ends, slow_order(maps[row], most_first), counts)
        clean = model(image[None])[0, target].item()
        points = {
            "correct": [float(one.argmax() == target) for one in logits],
            "ratio": [one[target].item() / clean for one in logits],
            "change": [abs(one[target].item() - clean) / abs(clean) for one in logits],
        }[relation]
        if relation == "ratio" and clean <= 0:
            points = [math.nan] * len(points)
        np.testing.assert_allclose(found.curves[measure][row], points, atol=2e-5, rtol=1e-4)
        np.testing.assert_allclose(found.measures[measure][row], np.mean(points), atol=2e-5, rtol=1e-4)


def test_a_ratio_to_an_output_that_is_not_above_0_is_not_a_number() -> None:
    logits, clean = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[2.0, 0.0], [-2.0, 0.0]])
    found = scored(logits, torch.zeros(2, dtype=torch.long), "logit_ratio", clean)
    assert found[0] == 0.5 and found[1].isnan()


def test_shares_come_to_the_nearest_count() -> None:
    assert share_counts(64, (0.0, 0.05, 0.5, 1.0)) == [0, 3, 32, 64]
    assert share_counts(10, (0.05, 0.15, 0.25)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("parameters", "higher"),
    [
        ({}, False),
        ({"start": "fill"}, True),
        ({"order": "least_relevant_first"}, True),
        ({"order": "least_relevant_first", "start": "fill"}, False),
        ({"output": "logit_change"}, True),
        ({"output": "logit_change", "order": "least_relevant_first"}, False),
    ],
)
def test_the_better_map_scores_on_the_side_that_is_called_better(parameters: Any, higher: bool) -> None:
    model = linear_classifier()
    with torch.no_grad():
        model.network[1].weight.abs_()  # every pixel speaks for every class
    batch = make_batch(model, 6, 4)
    weights = model.network[1].weight[batch.targets].view(6, 3, 4, 4)
    gain = (weights * batch.images).sum(1, keepdim=True).detach()
    metric = PerturbationCurve(fill="black", **{"output": "logit", **parameters})
    good, bad = metric(model, batch, gain).measures["auc"], metric(model, batch, -gain).measures["auc"]
    assert metric.higher_is_better == higher
    assert ((good > bad) == higher)[good.isfinite()].all() and good.isfinite().any()


def test_the_data_set_s_colour_is_its_mean_and_needs_calibration(case: Case) -> None:
    model, batch, maps = case
    metric = PerturbationCurve(fill="dataset", step=16)
    with pytest.raises(ValueError, match="calibrate the metric first"):
        metric(model, batch, maps)
    found = DatasetColour()(model, [Batch(batch.images[:1], batch.targets[:1], batch.ids[:1]), batch])
    weights = torch.tensor([2.0, 1, 1, 1]).view(4, 1) / 5
    expected = (batch.images.mean((2, 3)) * weights).sum(0)
    assert list(found) == ["red", "green", "blue"]
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-6)
    colour = (found["red"], found["green"], found["blue"])
    same = PerturbationCurve(fill="value", value=colour, step=16)(model, batch, maps)
    torch.testing.assert_close(metric.calibrated(found)(model, batch, maps).measures, same.measures)


def test_what_a_curve_shares_is_asked_for_and_not_computed_again(case: Case) -> None:
    model, batch, maps = case
    asked = []

    def shared(work: Any, used: Classifier, images: Batch) -> Any:
        asked.append(work)
        return work(used, images, Noise())

    with counting(model) as counts:
        PerturbationCurve(start="fill", fill="blur", step=16)(model, batch, maps, Context(share=shared))
    assert [work.fill for work in asked] == ["blur", None] and counts.forwards == 4 * 5


@pytest.mark.parametrize("tolerance", [0.02, 0.002])
def test_an_adaptive_curve_is_right_to_its_tolerance_where_the_curve_is_smooth(tolerance: float) -> None:
    curves = torch.stack(
        [
            torch.sigmoid((0.3 - torch.linspace(0, 1, 225)) * 12),
            torch.linspace(1, 0, 225) ** 3,
            torch.linspace(0.9, 0.1, 225),
            torch.full((225,), 0.4),
        ]
    )
    counts = pixel_counts(224, 1)
    asked = torch.zeros(4, dtype=torch.long)

    class Known(CurvePoints):
        def __init__(self) -> None:
            pass

        def at(self, rows: Tensor, counts: Tensor) -> Tensor:
            asked.index_add_(0, rows, torch.ones_like(rows))
            return curves[rows, counts.long()]

    found = adaptive_curve(Known(), 4, counts, torch.device("cpu"), tolerance)
    error = (torch.trapezoid(found, dx=1 / 224) - torch.trapezoid(curves, dx=1 / 224)).abs()
    assert (error <= tolerance).all()
    # Straight lines take the coarse points alone; a bend takes more of them, and the finer tolerance more still.
    assert asked[2] == asked[3] == 17 and (asked <= 45).all()
    assert asked[0] > 17 or tolerance == 0.02


def test_an_adaptive_curve_without_tolerance_for_error_is_the_whole_curve(case: Case) -> None:
    model, batch, maps = case
    counts = pixel_counts(64, 1)
    points = CurvePoints(
        model, batch.targets, pixel_ranks(maps), batch.images, torch.zeros_like(batch.images), "probability"
    )
    whole = perturbation_curve(points, 4, counts, batch.images.device)
    found = adaptive_curve(points, 4, counts, batch.images.device, 1e-12)
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "parameters",
    [
        {"fill": "value"},
        {"value": (0.0, 0.0, 0.0)},
        {"fill": "value", "value": (0.0, 0.0, 1.5)},
        {"fractions": (0.5, 0.1)},
        {"fractions": (0.5, 1.1)},
        {"fractions": (0.5,), "step": 3},
        {"tolerance": 0},
    ],
)
def test_protocols_that_mean_nothing_are_refused(parameters: Any) -> None:
    with pytest.raises(ValidationError):
        PerturbationCurve(**parameters)


def test_the_cost_counts_ends_beside_the_curve() -> None:
    setting = Setting(5, 8, 8)
    assert PerturbationCurve(step=16).cost(setting).forwards == 5
    # Three fractions, and the image for the ratio; from the fill, the fractions alone.
    assert MoRF(fractions=(0.1, 0.2, 0.3)).cost(setting).forwards == 4
    assert MoRF(fractions=(0.0, 0.2, 0.3)).cost(setting).forwards == 3
    assert InsertionAccuracy(fractions=(0.1, 0.2)).cost(setting).forwards == 2
    assert InsertionAccuracy(fractions=(0.1, 0.2), fill="blur").cost(setting).forwards == 3

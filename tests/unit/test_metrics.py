"""Metrics against slow implementations of their protocols and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_models import linear_classifier, make_batch, small_classifier
from torch import Tensor

from pipeline.contracts import Batch, Context, Setting
from pipeline.fill import blurred
from pipeline.metrics import MAR, Deletion, Insertion
from pipeline.metrics.curve import pixel_counts
from pipeline.metrics.curve_metric import CurveProtocol, protocol_curve
from pipeline.models import Classifier
from pipeline.models.pass_counter import counting
from pipeline.noise import Noise
from pipeline.reduction import pixel_ranks


@pytest.fixture
def case() -> tuple[Classifier, Batch, Tensor]:
    model = small_classifier()
    batch = make_batch(model, 4)
    return model, batch, Noise(2).normal("map", batch.ids, (1, 8, 8))


def slow_curve(
    model: Classifier, image: Tensor, other: Tensor, target: int, relevance: Tensor, step: int
) -> list[float]:
    """Pixels change from `image` to `other`, most relevant first, by loops."""
    height, width = image.shape[1:]
    order = sorted(range(height * width), key=lambda pixel: (-relevance.flatten()[pixel].item(), pixel))
    current, scores = image.clone(), []
    for point in range(math.ceil(len(order) / step) + 1):
        for pixel in order[max(0, point - 1) * step : point * step] if point else []:
            current[:, pixel // width, pixel % width] = other[:, pixel // width, pixel % width]
        scores.append(F.softmax(model(current[None]), 1)[0, target].item())
    return scores


@pytest.mark.parametrize("step", [1, 7, 8, 64, 100])
def test_deletion_is_the_slow_protocol_of_rise(case: tuple[Classifier, Batch, Tensor], step: int) -> None:
    model, batch, maps = case
    found = Deletion(step=step)(model, batch, maps)
    for row in range(4):
        gone = model.mean[0].expand_as(batch.images[row])
        curve = slow_curve(model, batch.images[row], gone, int(batch.targets[row]), maps[row], step)
        np.testing.assert_allclose(found.curves["auc"][row], curve, atol=1e-5)
        area = np.trapezoid(curve, dx=1 / (len(curve) - 1))
        assert found.measures["auc"][row].item() == pytest.approx(area, abs=1e-5)


def test_insertion_is_the_slow_protocol_of_rise(case: tuple[Classifier, Batch, Tensor]) -> None:
    model, batch, maps = case
    found = Insertion()(model, batch, maps)
    start = blurred(model, batch.images)
    for row in range(4):
        curve = slow_curve(model, start[row], batch.images[row], int(batch.targets[row]), maps[row], 8)
        np.testing.assert_allclose(found.curves["auc"][row], curve, atol=1e-5)
        area = np.trapezoid(curve, dx=1 / (len(curve) - 1))
        assert found.measures["auc"][row].item() == pytest.approx(area, abs=1e-5)


def test_protocol_agi_starts_from_black_and_takes_the_mean(case: tuple[Classifier, Batch, Tensor]) -> None:
    model, batch, maps = case
    deleted, inserted = (metric(protocol="agi")(model, batch, maps) for metric in (Deletion, Insertion))
    black = torch.zeros_like(batch.images)
    for row in range(4):
        target = int(batch.targets[row])
        down = slow_curve(model, batch.images[row], black[row], target, maps[row], 8)
        up = slow_curve(model, black[row], batch.images[row], target, maps[row], 8)
        assert deleted.measures["auc"][row].item() == pytest.approx(np.mean(down), abs=1e-5)
        assert inserted.measures["auc"][row].item() == pytest.approx(np.mean(up), abs=1e-5)


def test_curves_start_and_end_at_the_two_images(case: tuple[Classifier, Batch, Tensor]) -> None:
    model, batch, maps = case
    clean = F.softmax(model(batch.images), 1).gather(1, batch.targets[:, None])[:, 0]
    torch.testing.assert_close(Deletion()(model, batch, maps).curves["auc"][:, 0], clean)
    torch.testing.assert_close(Insertion()(model, batch, maps).curves["auc"][:, -1], clean)


def test_the_curve_of_a_linear_model_is_the_sum_of_what_is_left() -> None:
    model = linear_classifier()
    batch = make_batch(model, 3, 4)
    weights = model.network[1].weight[batch.targets].view(3, 3, 4, 4)
    gain = (weights * batch.images).sum(1, keepdim=True)
    protocol = CurveProtocol(
        order="most_relevant_first", start="image", fill="black", score="logit", area="mean", step=1
    )
    curve = protocol_curve(protocol, model, batch, gain, Context())
    removed = gain.flatten(1).sort(1, descending=True).values.cumsum(1)
    expected = curve[:, :1] - F.pad(removed, (1, 0))
    torch.testing.assert_close(curve, expected, atol=1e-5, rtol=1e-5)


def test_pixel_counts_are_rise_s() -> None:
    assert pixel_counts(10, 4) == [0, 4, 8, 10]
    assert len(pixel_counts(224 * 224, 224)) == 225
    assert Deletion().cost(Setting(1000, 224, 224)).forwards == 225
    assert Deletion(step=1792).cost(Setting(1000, 224, 224)).forwards == 29


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_mar_is_the_smallest_share_on_the_grid_that_keeps_the_prediction(
    case: tuple[Classifier, Batch, Tensor], rows: int
) -> None:
    model, batch, maps = case
    model.rows = rows
    found = MAR(grid=16)(model, batch, maps).measures["mar"]
    order = maps.flatten(1).sort(dim=1, descending=True, stable=True).indices
    for row in range(4):
        expected = math.nan
        for share in range(1, 17):
            kept = torch.zeros(64)
            kept[order[row, : math.ceil(64 * share / 16)]] = 1
            if model((batch.images[row] * kept.view(1, 8, 8))[None]).argmax() == batch.targets[row]:
                expected = math.ceil(64 * share / 16) / 64
                break
        assert found[row].item() == pytest.approx(expected)


def test_mar_of_a_wrong_target_is_not_a_number(case: tuple[Classifier, Batch, Tensor]) -> None:
    model, batch, maps = case
    wrong = Batch(batch.images, (batch.targets + 1) % 5, batch.ids)
    values = MAR(grid=4)(model, wrong, maps).measures["mar"]
    clean = torch.stack([model(image[None]).argmax() for image in batch.images])
    assert (clean != wrong.targets).all()
    # A share below 1 may happen to give the wrong class; where none does, there is no ratio.
    never = [
        all(
            model(torch.where(pixel_ranks(maps)[row] < limit, batch.images[row], 0.0)[None]).argmax()
            != wrong.targets[row]
            for limit in (16, 32, 48, 64)
        )
        for row in range(4)
    ]
    assert values.isnan().tolist() == never and any(never)


@pytest.mark.parametrize("grid", [1, 2, 13, 64])
def test_bisection_finds_a_share_that_holds_while_the_one_before_does_not(
    case: tuple[Classifier, Batch, Tensor], grid: int
) -> None:
    model, batch, maps = case
    found = MAR(grid=grid, search="bisection")(model, batch, maps).measures["mar"]
    order = maps.flatten(1).sort(dim=1, descending=True, stable=True).indices

    def holds(row: int, share: int) -> bool:
        kept = torch.zeros(64)
        kept[order[row, : math.ceil(64 * share / grid)]] = 1
        return bool(model((batch.images[row] * kept.view(1, 8, 8))[None]).argmax() == batch.targets[row])

    for row in range(4):
        share = next(share for share in range(1, grid + 1) if math.ceil(64 * share / grid) / 64 == found[row])
        assert holds(row, share) and (share == 1 or not holds(row, share - 1))
    with counting(model) as counts:
        MAR(grid=grid, search="bisection")(model, batch, maps)
    assert counts.forwards / 4 <= MAR(grid=grid, search="bisection").cost(Setting(5, 8, 8)).forwards


def test_the_two_searches_agree_where_the_prediction_stays_once_it_is_there() -> None:
    # Each further pixel adds to the target's logit: what is enough stays enough.
    model = linear_classifier()
    with torch.no_grad():
        model.network[1].weight[0] = 1.0
        model.network[1].weight[1:] = 0.0
        model.network[1].bias.copy_(torch.tensor([-9.0, 0.0, -1.0]))
    batch = Batch(0.2 + 0.8 * make_batch(model, 8, 4).images, torch.zeros(8, dtype=torch.long), tuple("abcdefgh"))
    maps = Noise(3).uniform("map", batch.ids, (1, 4, 4))
    scanned = MAR(grid=16)(model, batch, maps).measures["mar"]
    halved = MAR(grid=16, search="bisection")(model, batch, maps).measures["mar"]
    assert torch.equal(scanned, halved) and len(set(scanned.tolist())) > 1


def test_a_mask_of_the_method_s_own_is_a_measure_beside_the_map_s(case: tuple[Classifier, Batch, Tensor]) -> None:
    model, batch, maps = case
    own = torch.tensor([0.1, 0.2, 0.3, 0.4])
    found = MAR(grid=16)(model, batch, maps, Context(columns={"mar": own})).measures
    assert list(found) == ["mar", "own"] and torch.equal(found["own"], own)
    assert "own" not in MAR(grid=16)(model, batch, maps).measures

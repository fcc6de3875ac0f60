"""PruneGrad and PrunePGD, their scores, masks and calibration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from small_models import drawn, make_batch, settle, small_classifier
from torch import Tensor, nn

from pipeline.contracts import Batch, Setting
from pipeline.errors import FatalError
from pipeline.methods.gradient import input_gradient
from pipeline.methods.prune_grad import PruneGrad
from pipeline.methods.prune_pgd import PrunePGD
from pipeline.methods.pruning import (
    Scores,
    grid_thresholds,
    percentile_thresholds,
    pruned,
    pruned_gradient,
    unit_scores,
)
from pipeline.methods.pruning_choice import PruningCalibration
from pipeline.models import Classifier
from pipeline.models.activation import Activation
from pipeline.noise import Noise


def slow_run(model: Classifier, image: Tensor, masks: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
    """The small network by hand, one image, each ReLU's result times a mask: logits and the activations."""
    one, two, head = (model.network.get_submodule(name) for name in ("0", "2", "6"))
    features = (image[None] - model.mean) / model.std
    first = F.relu(F.conv2d(features, one.weight, one.bias, padding=1))
    first = first if masks is None else first * masks[0]
    second = F.relu(F.conv2d(first, two.weight, two.bias, stride=2, padding=1))
    second = second if masks is None else second * masks[1]
    return F.linear(second.mean((2, 3)), head.weight, head.bias)[0], [first, second]


def slow_scores(model: Classifier, image: Tensor, target: int, masks: list[Tensor] | None = None) -> list[Tensor]:
    logits, activations = slow_run(model, image.clone().requires_grad_(), masks)
    gradients = torch.autograd.grad(logits[target], activations)
    return [(a * g).abs().detach() for a, g in zip(activations, gradients, strict=True)]


def slow_masks(scores: list[Tensor], percentile: float) -> list[Tensor]:
    everything = np.concatenate([one.flatten().numpy().astype(np.float64) for one in scores])
    threshold = np.percentile(everything, percentile)
    return [(one > threshold).float() for one in scores]


def slow_gradient(model: Classifier, image: Tensor, target: int, masks: list[Tensor] | None) -> Tensor:
    pixels = image.clone().requires_grad_()
    return torch.autograd.grad(slow_run(model, pixels, masks)[0][target], pixels)[0]


def slow_ascent(model: Classifier, image: Tensor, target: int, masks: list[Tensor], method: PrunePGD) -> Tensor:
    delta = torch.zeros_like(image)
    for _ in range(method.steps):
        gradient = slow_gradient(model, image + delta, target, masks)
        delta = delta + method.step_size * gradient / gradient.norm()
        if delta.norm() > method.bound:
            delta = delta / delta.norm() * method.bound
        if method.clip:
            delta = (image + delta).clamp(0, 1) - image
    return delta


def slow_change(model: Classifier, image: Tensor, target: int, masks: list[Tensor]) -> float:
    before, after = (slow_run(model, image, one)[0][target].item() for one in (None, masks))
    return abs(after - before) / abs(before)


def slow_iterative(model: Classifier, image: Tensor, target: int, allowed: float, percent: float, rescore: bool) -> Any:
    """Masks by removing a share of the units at a time, with the units sorted outright."""
    scores = slow_scores(model, image, target)
    total = sum(one.numel() for one in scores)
    step = int(np.ceil(total * percent / 100))
    masks = [torch.ones_like(one) for one in scores]
    removed = sum(int((one == 0).sum()) for one in scores)
    while True:
        flat = torch.cat([one.flatten() for one in scores]).sort().values
        threshold = flat[removed - 1].item() if removed else -1.0
        trial = [(one > threshold).float() for one in scores]
        if slow_change(model, image, target, trial) > allowed:
            return masks
        masks = trial
        if removed == total:
            return masks
        if rescore:
            scores = slow_scores(model, image, target, masks)
        removed = min(total, max(removed, sum(int((one == 0).sum()) for one in scores)) + step)


@pytest.mark.parametrize("percentile", [20, 55, 61.3, 75, 90, 97])
def test_prune_grad_equals_the_slow_form(percentile: float) -> None:
    model = small_classifier()
    batch = make_batch(model)
    maps = PruneGrad(percentile=percentile)(model, batch, Noise())
    for image, target, found in zip(batch.images, batch.targets.tolist(), maps, strict=True):
        masks = slow_masks(slow_scores(model, image, target), percentile)
        expected = slow_gradient(model, image, target, masks)
        assert expected.abs().max() > 0.01
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"bound": 0.03}, {"clip": True, "step_size": 0.2, "bound": 2.0}])
def test_prune_pgd_equals_the_slow_form(settings: dict[str, Any]) -> None:
    model = small_classifier()
    batch = make_batch(model)
    method = PrunePGD(percentile=80, **settings)
    maps = method(model, batch, Noise())
    for image, target, found in zip(batch.images, batch.targets.tolist(), maps, strict=True):
        masks = slow_masks(slow_scores(model, image, target), 80)
        expected = slow_ascent(model, image, target, masks, method)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        assert found.norm() <= method.bound * 1.0001


def test_the_perturbation_raises_the_pruned_output_more_than_any_random_one() -> None:
    model = small_classifier()
    batch = make_batch(model, 3)
    maps = PrunePGD(percentile=70)(model, batch, Noise())
    for row, (image, target) in enumerate(zip(batch.images, batch.targets.tolist(), strict=True)):
        masks = slow_masks(slow_scores(model, image, target), 70)
        reached = slow_run(model, image + maps[row], masks)[0][target]
        for draw in range(20):
            other = drawn(f"direction-{draw}", *image.shape, low=-1)
            assert slow_run(model, image + other * 0.1 / other.norm(), masks)[0][target] < reached


def test_a_percentile_of_zero_gives_the_plain_gradient() -> None:
    model = small_classifier()
    batch = make_batch(model)
    maps = PruneGrad(percentile=0)(model, batch, Noise())
    torch.testing.assert_close(maps, input_gradient(model, batch.images, batch.targets, "logit"), atol=1e-6, rtol=0)


def test_pruning_units_without_effect_changes_nothing() -> None:
    model = small_classifier()
    batch = make_batch(model)
    assert unit_scores(model, batch.images, batch.targets, "logit").without_effect().min() > 0.1 * 704
    maps = PruneGrad(percentile=1)(model, batch, Noise())
    torch.testing.assert_close(maps, input_gradient(model, batch.images, batch.targets, "logit"), atol=1e-5, rtol=0)


def test_a_two_layer_network_has_the_closed_form() -> None:
    network = settle(nn.Sequential(nn.Flatten(), nn.Linear(48, 30), nn.GELU(), nn.Linear(30, 4)))
    model = Classifier(network, classes=4)
    batch = make_batch(model, 3, size=4)
    maps = PruneGrad(percentile=60)(model, batch, Noise())
    weights, head = network[1].weight, network[3].weight
    for image, target, found in zip(batch.images, batch.targets.tolist(), maps, strict=True):
        inner = weights @ image.flatten() + network[1].bias
        # d gelu(z) / dz = Φ(z) + z φ(z)
        cumulative = 0.5 * (1 + torch.erf(inner / 2**0.5))
        slope = cumulative + inner * torch.exp(-(inner**2) / 2) / (2 * torch.pi) ** 0.5
        order = (F.gelu(inner) * head[target]).abs().argsort()
        kept = torch.ones(30)
        kept[order[:18]] = 0
        expected = ((kept * head[target] * slope) @ weights).view_as(image)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_the_lowest_units_are_found_exactly_and_ties_go_together() -> None:
    values = drawn("scores", 3, 2000, low=-1.0).clamp(min=0)
    values[:, ::7] = values[:, 1:2]
    values[2, :5] = torch.tensor([1e-42, 3e-39, 2.0, 1e30, 0.0])
    scores = Scores(torch.zeros(3), values, ())
    ordered = values.sort(1).values
    for rank in (0, 1, 700, 1000, 1500, 1999, 2000):
        expected = ordered[:, rank - 1] if rank else torch.full((3,), -1.0)
        assert torch.equal(scores.lowest([rank] * 3), expected)
    percentiles = [0.0, 5.0, 50.0, 77.7, 100.0]
    together = grid_thresholds(scores, percentiles)
    assert all(
        torch.equal(together[place], percentile_thresholds(scores, one)) for place, one in enumerate(percentiles)
    )


def test_units_below_the_percentile_are_as_many_as_numpy_says() -> None:
    values = torch.arange(1.0, 11.0)[None]
    scores = Scores(torch.zeros(1), values, ())
    for percentile in (0, 10, 33, 60, 61, 69, 85, 99, 100):
        gone = int((values <= percentile_thresholds(scores, percentile)).sum())
        expected = int((values.numpy() <= np.percentile(values.double().numpy(), percentile)).sum())
        assert gone == (expected if percentile else 0)


def test_pruned_units_stay_zero_while_the_image_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_classifier()
    batch = make_batch(model, 3)
    scores = unit_scores(model, batch.images, batch.targets, "logit")
    kept = scores.above(percentile_thresholds(scores, 80))
    woken = 0
    records: list[tuple[Tensor, Tensor]] = []
    inner = pruned(kept)

    def record(activation: Activation, features: Tensor) -> Tensor:
        result = inner(activation, features)
        mask = kept[activation.index]
        assert mask is not None
        records.append((result.detach(), mask[:, 0]))
        nonlocal woken
        woken += int((activation.function(features.detach())[~mask[:, 0]] > 0).sum())
        return result

    monkeypatch.setattr("pipeline.methods.pruning.pruned", lambda _: record)
    delta = torch.zeros_like(batch.images)
    for step in range(5):
        delta = delta + drawn(f"step-{step}", *delta.shape, low=-0.2, high=0.2)
        pruned_gradient(model, batch.images + delta, batch.targets, "logit", kept)
    assert len(records) == 10 and woken > 100
    assert all((result[~mask] == 0).all() and (result[mask] != 0).any() for result, mask in records)


@pytest.mark.parametrize("rescore", [True, False])
@pytest.mark.parametrize(("allowed", "percent"), [(0.15, 1.0), (0.3, 4.0), (0.9, 30.0)])
def test_the_per_image_form_equals_the_slow_form(allowed: float, percent: float, rescore: bool) -> None:
    model = small_classifier()
    batch = make_batch(model)
    method = PruneGrad(mode="per_image", allowed_change=allowed, step_percent=percent, rescore=rescore)
    maps = method(model, batch, Noise())
    shares = []
    for image, target, found in zip(batch.images, batch.targets.tolist(), maps, strict=True):
        masks = slow_iterative(model, image, target, allowed, percent, rescore)
        shares.append(sum(float(one.sum()) for one in masks))
        torch.testing.assert_close(found, slow_gradient(model, image, target, masks), atol=1e-4, rtol=1e-4)
    assert len(set(shares)) > 1 or percent == 30.0


@pytest.mark.parametrize("kind", [PruneGrad, PrunePGD])
def test_the_per_image_form_does_not_depend_on_its_batch(kind: type[PruneGrad | PrunePGD]) -> None:
    model = small_classifier()
    batch = make_batch(model)
    method = kind(mode="per_image", step_percent=5)
    together = method(model, batch, Noise())
    for rows in (1, 2, 3):
        model.rows = rows
        torch.testing.assert_close(method(model, batch, Noise()), together, atol=1e-5, rtol=0)


def batches(model: Classifier, count: int, size: int) -> Iterator[Batch]:
    whole = make_batch(model, count)
    for first in range(0, count, size):
        part = slice(first, first + size)
        yield Batch(whole.images[part], whole.targets[part], whole.ids[part])


def test_the_calibration_reaches_the_allowed_change() -> None:
    model = small_classifier()
    calibration = PruningCalibration(step=1.0, allowed_change=0.2)
    found = calibration(model, batches(model, 12, 5))
    assert found["images"] == 12 and found["left_out"] == 0
    assert found["change_below"] < 0.2 <= found["change_above"]
    whole = make_batch(model, 12)
    changes = [
        slow_change(model, image, target, slow_masks(slow_scores(model, image, target), found["percentile"]))
        for image, target in zip(whole.images, whole.targets.tolist(), strict=True)
    ]
    assert np.mean(changes) == pytest.approx(0.2, abs=0.02)


def test_the_calibration_does_not_depend_on_batches_and_rows() -> None:
    model = small_classifier()
    calibration = PruningCalibration()
    expected = calibration(model, batches(model, 7, 7))
    for rows, size in ((1, 7), (3, 4), (64, 1)):
        model.rows = rows
        assert calibration(model, batches(model, 7, size)) == pytest.approx(expected, abs=1e-5)


def test_the_line_between_two_percentiles_is_measured_on_the_grid() -> None:
    model = small_classifier()
    found = PruningCalibration(step=10.0)(model, batches(model, 6, 6))
    whole = make_batch(model, 6)
    low = 10.0 * np.floor(found["percentile"] / 10.0)
    below, above = (
        np.mean([
            slow_change(model, image, target, slow_masks(slow_scores(model, image, target), percentile))
            for image, target in zip(whole.images, whole.targets.tolist(), strict=True)
        ])
        for percentile in (low, low + 10.0)
    )  # fmt: skip
    assert found["change_below"] == pytest.approx(below)
    assert found["change_above"] == pytest.approx(above)
    assert found["percentile"] == pytest.approx(low + 10.0 * (0.15 - below) / (above - below))


def test_both_methods_share_one_calibration() -> None:
    assert PruneGrad().calibration() == PrunePGD(steps=3).calibration() == PruningCalibration()
    assert PruneGrad(allowed_change=0.3).calibration() == PruningCalibration(allowed_change=0.3)
    assert PruneGrad(percentile=50).calibration() is None and PrunePGD(mode="per_image").calibration() is None
    assert PrunePGD().calibrated({"percentile": 61.5}).percentile == 61.5


def test_an_unknown_percentile_and_contradictions_are_told() -> None:
    model = small_classifier()
    with pytest.raises(FatalError, match=r"method\.calibrated"):
        PruneGrad()(model, make_batch(model), Noise())
    with pytest.raises(ValidationError, match="leave percentile out"):
        PruneGrad(mode="per_image", percentile=4)
    with pytest.raises(FatalError, match="no image"):
        PruningCalibration()(model, [])


class Counted(nn.Module):
    """A network that counts the images that go in, and the gradients that come out."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.forwards = self.backwards = 0

    def forward(self, images: Tensor) -> Tensor:
        self.forwards += len(images)
        images = images.clone()
        if images.requires_grad:
            images.register_hook(self._count)
        logits: Tensor = self.inner(images)
        return logits

    def _count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


@pytest.mark.parametrize(("method", "forwards", "backwards"), [(PruneGrad, 2, 1), (PrunePGD, 21, 20)])
def test_passes_are_as_declared_but_the_scores_stop_at_the_first_activation(
    method: type[PruneGrad | PrunePGD], forwards: int, backwards: int
) -> None:
    model = small_classifier()
    batch = make_batch(model)
    model.network = Counted(model.network)
    method(percentile=60)(model, batch, Noise())
    assert (model.network.forwards, model.network.backwards) == (5 * forwards, 5 * backwards)
    declared = method(percentile=60).cost(Setting(5, 8, 8))
    assert (declared.forwards, declared.backwards) == (forwards, backwards + 1)


def test_the_search_for_the_percentile_takes_no_more_passes_than_declared() -> None:
    model = small_classifier()
    given = list(batches(model, 6, 4))
    model.network = Counted(model.network)
    PruningCalibration(step=5)(model, given)
    declared = PruningCalibration(step=5).cost(Setting(5, 8, 8)).forwards
    assert declared == 21 and 6 < model.network.forwards < 6 * declared


@pytest.mark.parametrize("rescore", [True, False])
def test_the_per_image_form_takes_no_more_passes_than_declared(rescore: bool) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 64), nn.Softplus(), nn.Linear(64, 3))
    model = Classifier(settle(network), classes=3)
    with torch.no_grad():
        network[3].weight *= 1e-4
        network[3].bias += 5
    batch = make_batch(model, 2, size=4)
    assert int(unit_scores(model, batch.images, batch.targets, "logit").without_effect().max()) == 0
    method = PruneGrad(mode="per_image", step_percent=3.9, rescore=rescore)
    declared = method.cost(Setting(3, 4, 4))
    counted = model.network = Counted(network)
    method(model, batch, Noise())
    # The scores, steps of 3 of the 64 units until all are gone, and the gradient.
    assert counted.forwards == 2 * (1 + 22 + 1)
    assert counted.forwards <= 2 * declared.forwards


def test_steps_have_their_length_also_where_the_gradient_is_tiny() -> None:
    model = small_classifier()
    batch = make_batch(model, 3)
    expected = PrunePGD(percentile=60, steps=1)(model, batch, Noise())
    head = model.network.get_submodule("6")
    for _ in range(2):
        with torch.no_grad():
            head.weight *= 1e-15
        found = PrunePGD(percentile=60, steps=1)(model, batch, Noise())
        torch.testing.assert_close(found.flatten(1).norm(dim=1), torch.full((3,), 0.01))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_nan_in_the_network_shows_in_every_map() -> None:
    model = small_classifier()
    batch = make_batch(model)
    with torch.no_grad():
        model.network.get_submodule("2").weight[0, 0, 0, 0] = float("nan")
    maps = PruneGrad(percentile=60)(model, batch, Noise())
    assert not maps.flatten(1).isfinite().all(1).any()


def test_every_parameter_changes_the_map() -> None:
    model = small_classifier()
    batch = make_batch(model)
    plain = PruneGrad(percentile=70)(model, batch, Noise())
    assert not torch.allclose(plain, PruneGrad(percentile=90)(model, batch, Noise()))
    assert not torch.allclose(plain, PruneGrad(percentile=70, output="probability")(model, batch, Noise()))

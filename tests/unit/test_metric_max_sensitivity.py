"""Maximum sensitivity against loops, Captum and closed forms on a linear model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from captum.metrics import sensitivity_max
from small_models import linear_classifier, make_batch, small_classifier
from torch import Tensor

from pipeline.contracts import AttributionMethod, Batch, Context, Cost, Setting
from pipeline.methods import Gradient, GradientXInput, Occlusion, Random, SmoothGrad
from pipeline.metrics import MaxSensitivity
from pipeline.models import Classifier
from pipeline.models.pass_counter import counting
from pipeline.noise import Noise
from pipeline.reduction import reduce_channels

NOISE = Noise(5)
Explain = Callable[[Classifier, Batch], Tensor]


def explaining(method: AttributionMethod) -> Explain:
    return lambda model, batch: reduce_channels(method(model, batch, NOISE), method.reduction)


def sensitivity(
    metric: MaxSensitivity, model: Classifier, batch: Batch, explain: Explain, maps: Tensor | None = None
) -> Tensor:
    maps = explain(model, batch) if maps is None else maps
    return metric(model, batch, maps, Context(noise=NOISE, explain=explain)).measures["sensitivity"]


def changed(batch: Batch, row: int, draw: int, radius: float) -> Tensor:
    """One image under one draw."""
    drawn = NOISE.uniform("max_sensitivity", batch.ids, tuple(batch.images.shape[1:]), draw)[row]
    return (batch.images[row] + radius * (2 * drawn - 1)).clamp(0, 1)


@pytest.mark.parametrize("rows", [1, 4, 64])
@pytest.mark.parametrize("method", [GradientXInput(), SmoothGrad(samples=3), Occlusion(patch=3, stride=2)])
def test_it_is_the_largest_relative_change_over_all_draws(method: AttributionMethod, rows: int) -> None:
    model = small_classifier()
    batch = make_batch(model, 3)
    explain = explaining(method)
    maps = explain(model, batch)
    expected = []
    for row in range(3):
        largest = 0.0
        for draw in range(5):
            image = changed(batch, row, draw, 0.1)[None]
            found = explain(model, Batch(image, batch.targets[row : row + 1], batch.ids[row : row + 1]))[0]
            largest = max(largest, ((found - maps[row]).square().sum() / maps[row].square().sum()).sqrt().item())
        expected.append(largest)
    model.rows = rows
    found = sensitivity(MaxSensitivity(radius=0.1, draws=5), model, batch, explain, maps)
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=1e-4)


def test_it_is_captums() -> None:
    model = small_classifier()
    batch = make_batch(model, 4)
    method = GradientXInput()

    def explain(images: Tensor | tuple[Tensor, ...], target: Tensor) -> Tensor | tuple[Tensor]:
        pixels = images[0] if isinstance(images, tuple) else images
        with torch.enable_grad():
            maps = method(model, Batch(pixels, target, ("",) * len(pixels)), NOISE)
        reduced = reduce_channels(maps, method.reduction)
        return (reduced,) if isinstance(images, tuple) else reduced

    def perturb(images: Tensor) -> Tensor:
        return torch.stack([changed(batch, place // 6, place % 6, 0.05) for place in range(len(images))])

    expected = sensitivity_max(explain, batch.images, perturb, n_perturb_samples=6, target=batch.targets)
    found = sensitivity(MaxSensitivity(radius=0.05, draws=6), model, batch, explaining(method))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_the_gradient_of_a_linear_model_does_not_change() -> None:
    model = linear_classifier()
    batch = make_batch(model, 3, size=4)
    found = sensitivity(MaxSensitivity(radius=0.5), model, batch, explaining(Gradient()))
    assert found.tolist() == [0, 0, 0]


def test_gradient_x_input_of_a_linear_model_changes_as_the_draws_say_and_within_the_radius() -> None:
    # Φ(x + δ) − Φ(x) = Σ_c w_c δ_c, at most r Σ_c |w_c| in every pixel.
    model = linear_classifier()
    batch = make_batch(model, 3, size=4)
    weights = model.network[1].weight[batch.targets].view(3, 3, 4, 4)
    size = (weights * batch.images).sum(1).flatten(1).norm(dim=1)
    changes = [
        [((changed(batch, row, draw, 0.2) - batch.images[row]) * weights[row]).sum(0).norm() for draw in range(10)]
        for row in range(3)
    ]
    expected = torch.tensor(changes).amax(1) / size
    found = sensitivity(MaxSensitivity(radius=0.2), model, batch, explaining(GradientXInput()))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert (found <= 0.2 * weights.abs().sum(1).flatten(1).norm(dim=1) / size).all()


def test_a_method_that_does_not_look_at_the_image_scores_zero() -> None:
    # It draws the same for the changed image: their names are the same.
    model = small_classifier()
    batch = make_batch(model, 3)
    assert sensitivity(MaxSensitivity(draws=3), model, batch, explaining(Random())).tolist() == [0, 0, 0]


def test_the_method_sees_images_in_the_ball_with_their_names_and_targets_and_no_superpixels() -> None:
    model = small_classifier()
    plain = make_batch(model, 3)
    batch = Batch(
        plain.images.round(),
        plain.targets,
        plain.ids,
        superpixels=torch.zeros(3, 8, 8, dtype=torch.int32),
        regions={"object": torch.ones(3, 1, 8, 8, dtype=torch.bool)},
    )
    seen: list[Batch] = []

    def explain(used: Classifier, images: Batch) -> Tensor:
        seen.append(images)
        return images.images.sum(1, keepdim=True)

    model.rows = 8
    sensitivity(MaxSensitivity(radius=0.3, draws=5), model, batch, explain, torch.ones(3, 1, 8, 8))
    # Two draws of three images fit into a forward of eight.
    assert [len(one) for one in seen] == [6, 6, 3]
    for one in seen:
        times = len(one) // 3
        assert one.ids == batch.ids * times and torch.equal(one.targets, batch.targets.repeat(times))
        assert one.superpixels is None and not one.regions
        change = one.images - batch.images.repeat(times, 1, 1, 1)
        assert change.abs().amax() <= 0.3 + 1e-6 and one.images.amin() >= 0 and one.images.amax() <= 1
        # Uniform, and half of it clipped, since all values are 0 or 1.
        assert 0.4 < (change == 0).float().mean() < 0.6 and change.abs().amax() > 0.29
    assert len(torch.cat([one.images for one in seen]).flatten(1).unique(dim=0)) == 15


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_one_draw_without_a_map_leaves_no_score(value: float) -> None:
    model = small_classifier()
    batch = make_batch(model, 3)
    model.rows = 3
    calls = []

    def explain(used: Classifier, images: Batch) -> Tensor:
        calls.append(images)
        maps = images.images.sum(1, keepdim=True)
        if len(calls) == 2:
            maps[1, 0, 0, 0] = value
        return maps

    found = sensitivity(MaxSensitivity(draws=4), model, batch, explain, batch.images.sum(1, keepdim=True))
    assert len(calls) == 4 and found.isnan().tolist() == [False, True, False]


def test_a_map_that_is_zero_has_no_score() -> None:
    model = small_classifier()
    batch = make_batch(model, 3)
    maps = batch.images.sum(1, keepdim=True)
    maps[2] = 0
    found = sensitivity(MaxSensitivity(draws=2), model, batch, lambda _, images: images.images[:, :1], maps)
    assert found.isnan().tolist() == [False, False, True]


def test_its_cost_is_that_of_a_map_for_each_draw() -> None:
    model = small_classifier()
    batch = make_batch(model, 4)
    explain = explaining(SmoothGrad(samples=3))
    maps = explain(model, batch)
    with counting(model) as count:
        sensitivity(MaxSensitivity(draws=5), model, batch, explain, maps)
    setting = Setting(5, 8, 8)
    declared = MaxSensitivity(draws=5).cost(setting, SmoothGrad(samples=3).cost(setting))
    assert declared == Cost(count.forwards / 4, count.backwards / 4) == Cost(15, 15)


def test_maps_alone_are_not_enough() -> None:
    model = small_classifier()
    batch = make_batch(model, 2)
    with pytest.raises(ValueError, match="max_sensitivity: explains changed images"):
        MaxSensitivity()(model, batch, torch.ones(2, 1, 8, 8))

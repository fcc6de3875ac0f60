"""Extremal perturbation against a slow re-implementation, and on a model whose evidence lies in one place."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from small_models import drawn, make_batch, small_classifier
from torch import Tensor, nn

from pipeline.contracts import Batch, Setting
from pipeline.methods.extremal_perturbation import ExtremalPerturbation
from pipeline.methods.smooth_mask import MaxConvolution, gaussian_blurred
from pipeline.models import Classifier
from pipeline.noise import Noise

CPU = torch.device("cpu")


def slow_mask(parameters: Tensor, height: int, width: int, step: int, sigma: float, margin: int = 0) -> Tensor:
    """The smooth max-convolution of one mask, every pixel against every parameter.

    With a margin in front, and then 0 beyond the grid; else the grid goes on there.
    """
    radius = 1 + math.ceil(sigma / step)
    beyond = radius + margin
    mode = "constant" if margin else "replicate"
    grid = F.pad(parameters[None, None], (beyond, beyond, beyond, beyond), mode=mode)[0, 0]
    i, j = (torch.arange(size) - beyond for size in grid.shape)
    y, x = torch.arange(-margin, height)[:, None, None, None], torch.arange(-margin, width)[None, :, None, None]
    i, j = i[None, None, :, None], j[None, None, None, :]
    window = ((i - y // step).abs() <= radius) & ((j - x // step).abs() <= radius)
    distance = ((y - step * i) ** 2 + (x - step * j) ** 2).double().sqrt()
    near = (torch.exp(-2 * (distance / sigma - 0.5).clamp(min=0) ** 2) * grid).flatten(2)
    share = F.softmax((20 * near).masked_fill(~window.flatten(2), -math.inf), 2)
    return (near * share).sum(2)


@pytest.mark.parametrize(("step", "sigma"), [(1, 0.75), (2, 3.0), (3, 4.0)])
def test_a_mask_is_the_smooth_maximum_of_weighted_neighbours(step: int, sigma: float) -> None:
    convolution = MaxConvolution(7, 10, step, sigma, False, CPU)
    parameters = drawn("grid", 2, *convolution.grid)
    masks, _ = convolution.mask(parameters)
    expected = torch.stack([slow_mask(one, 7, 10, step, sigma) for one in parameters.double()])
    torch.testing.assert_close(masks.double(), expected, atol=1e-5, rtol=0)


def test_the_margin_is_that_of_the_published_code() -> None:
    convolution = MaxConvolution(224, 224, 7, 21.0, True, CPU)
    masks, _ = convolution.mask(torch.ones(1, *convolution.grid))
    assert masks.shape == (1, 260, 260) and masks[convolution.image].shape == (1, 224, 224)
    small = MaxConvolution(6, 8, 2, 2.0, True, CPU)
    parameters = drawn("grid", 1, *small.grid)
    found = small.mask(parameters)[0][0]
    expected = slow_mask(parameters[0].double(), 6, 8, 2, 2.0, margin=2)
    torch.testing.assert_close(found[: 6 + 2, : 8 + 2].double(), expected, atol=1e-5, rtol=0)


def test_a_constant_grid_prefers_no_place_of_the_image() -> None:
    convolution = MaxConvolution(12, 12, 3, 4.0, False, CPU)
    mask, _ = convolution.mask(torch.ones(1, *convolution.grid))
    assert torch.allclose(mask.view(4, 3, 4, 3), mask[:, :3, :3].view(1, 3, 1, 3))


@pytest.mark.parametrize("margin", [False, True])
def test_the_gradient_of_a_mask_is_that_of_finite_differences(margin: bool) -> None:
    convolution = MaxConvolution(6, 8, 2, 3.0, margin, CPU)
    convolution._weights = convolution._weights.double()
    parameters = drawn("grid", 1, *convolution.grid).double()
    mask, sums = convolution.mask(parameters)
    upstream = drawn("upstream", *mask.shape, low=-1.0).double()
    found = convolution.gradient(parameters, sums, upstream)
    for place in range(parameters.numel()):
        move = torch.zeros_like(parameters).flatten()
        move[place] = 1e-5
        ahead, behind = (convolution.mask(parameters + sign * move.view_as(parameters))[0] for sign in (1, -1))
        slope = ((ahead - behind) * upstream).sum() / 2e-5
        assert found.flatten()[place].item() == pytest.approx(slope.item(), abs=1e-6)


def slow_perturbation(
    model: Classifier, image: Tensor, target: int, area: float, iterations: int, variant: str
) -> Tensor:
    """One mask by autograd and PyTorch's SGD, with a sorted mask against a template (step 1, sigma 2, blur 3)."""
    height, width = image.shape[-2:]
    levels = []
    for level in range(8):
        sigma = 3.0 * (1 - level / 7)
        reach = math.ceil(4 * sigma)
        kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / max(sigma, 1e-9)) ** 2)
        kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
        rows = F.conv2d((image - model.mean), kernel, padding=(0, reach), groups=3)
        levels.append(F.conv2d(rows, kernel.transpose(2, 3), padding=(reach, 0), groups=3) + model.mean)
    pyramid = torch.cat(levels)

    def shown(mask: Tensor) -> Tensor:
        # Each level counts by how near the mask is to it.
        near = torch.stack([(1 - (7 * mask - level).abs()).clamp(min=0) for level in range(8)])
        return (near[:, None] * pyramid).sum(0, keepdim=True).float()

    parameters = torch.ones(height, width, requires_grad=True)
    optimiser = torch.optim.SGD([parameters], lr=0.01, momentum=0.9, dampening=0.9)
    weight = 300.0
    zeros = int(height * width * (1 - area))
    for iteration in range(iterations):
        mask = slow_mask(parameters, height, width, 1, 2.0)

        def score(seen: Tensor, mirrored: bool = iteration % 2 == 0) -> Tensor:
            logits = model(shown(seen).flip(3) if mirrored else shown(seen))
            return logits[0, target]

        reward = {
            "preserve": lambda seen: score(seen),
            "delete": lambda seen: -score(1 - seen),
            "dual": lambda seen: score(seen) - score(1 - seen),
        }[variant](mask)
        values = mask.detach().flatten().sort().values
        template = (torch.arange(len(values)) >= zeros).double()
        # Equal values have no order, so each gets the mean of the template over all of them.
        tied = (values - values[zeros]).abs() <= 1e-5
        template[tied] = template[tied].mean()
        loss = weight * ((mask.flatten().sort().values - template) ** 2).mean() - reward
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        parameters.data.clamp_(0, 1)
        weight *= 1.0035
    return mask.detach().float()


@pytest.mark.parametrize("variant", ["preserve", "delete", "dual"])
def test_masks_are_those_of_the_slow_reimplementation(variant: str) -> None:
    model = small_classifier()
    batch = make_batch(model, 2, size=7)
    method = ExtremalPerturbation(areas=(0.3,), variant=variant, iterations=6, step=1, sigma=2.0, blur=3.0, smooth=0)
    expected = [
        slow_perturbation(model, image[None], int(target), 0.3, 6, variant)
        for image, target in zip(batch.images, batch.targets, strict=True)
    ]
    torch.testing.assert_close(method(model, batch, Noise())[:, 0], torch.stack(expected), atol=1e-4, rtol=0)


def one_patch_classifier(rows: slice, columns: slice) -> Classifier:
    """Its first logit is the contrast inside one patch; every other pixel is without effect."""

    class Contrast(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            patch = images[:, :, rows, columns]
            texture = patch - F.avg_pool2d(patch, 3, 1, 1)
            logit = 300 * texture.square().mean((1, 2, 3))
            return torch.stack([logit, torch.zeros_like(logit)], 1)

    return Classifier(Contrast(), classes=2)


@pytest.mark.parametrize("variant", ["preserve", "delete", "dual"])
def test_the_mask_lies_on_the_only_patch_that_counts(variant: str) -> None:
    rows, columns = slice(3, 8), slice(9, 14)
    model = one_patch_classifier(rows, columns)
    ids = ("a", "b")
    batch = Batch(Noise(3).uniform("image", ids, (3, 16, 16)), torch.zeros(2, dtype=torch.long), ids)
    # Faster than the paper, for fewer iterations; unmirrored, since the model is not symmetric.
    method = ExtremalPerturbation(iterations=80, learning_rate=0.1, smooth=0, flip=False, variant=variant)
    found = method.explain(model, batch, Noise())
    assert (found.maps[:, 0, rows, columns].sum((1, 2)) > 0.55 * found.maps.sum((1, 2, 3))).all()
    top = found.maps.flatten(1).argmax(1)
    assert ((top // 16 >= 3) & (top // 16 < 8) & (top % 16 >= 9) & (top % 16 < 14)).all()


def test_each_mask_gets_its_area() -> None:
    model = small_classifier()
    batch = make_batch(model, 1, size=12)
    areas = (0.1, 0.4)
    method = ExtremalPerturbation(areas=areas, iterations=160, learning_rate=0.02)
    found = method.explain(model, batch, Noise()).columns["area"]
    assert isinstance(found, Tensor)
    torch.testing.assert_close(found, torch.tensor([areas]), atol=0.03, rtol=0)


def test_the_map_of_several_areas_is_the_sum_of_their_masks() -> None:
    model = small_classifier()
    batch = make_batch(model, 2)
    maps = [
        ExtremalPerturbation(areas=areas, iterations=10, smooth=0)(model, batch, Noise())
        for areas in ((0.1,), (0.4,), (0.1, 0.4))
    ]
    torch.testing.assert_close(maps[0] + maps[1], maps[2])


def test_the_area_with_the_margin_leaves_more_of_the_image() -> None:
    model = small_classifier()
    batch = make_batch(model, 1, size=12)
    method = ExtremalPerturbation(iterations=40, learning_rate=0.1, step=1, sigma=3.0, area_of="margin")
    found = method.explain(model, batch, Noise()).columns["area"]
    assert isinstance(found, Tensor)
    # A tenth of (12 + 2·3)² pixels is 32, which is 0.22 of the image, and little of it lies outside.
    assert (found > 0.15).all()


def test_pixels_of_equal_value_share_the_template() -> None:
    model = one_patch_classifier(slice(0, 8), slice(0, 8))
    flat = Batch(torch.full((1, 3, 8, 8), 0.5), torch.zeros(1, dtype=torch.long), ("flat",))
    mask = ExtremalPerturbation(iterations=5, step=2, sigma=2.0, smooth=0)(model, flat, Noise())
    # Nothing speaks for one place: the mask stays symmetric under transposition.
    torch.testing.assert_close(mask, mask.transpose(2, 3), atol=1e-6, rtol=0)
    assert mask.flatten(1).std() < 0.2


def test_smoothing_is_a_gaussian_over_the_sum() -> None:
    model = small_classifier()
    batch = make_batch(model, 2)
    plain = ExtremalPerturbation(areas=(0.1, 0.4), iterations=3, smooth=0)(model, batch, Noise())
    smooth = ExtremalPerturbation(areas=(0.1, 0.4), iterations=3, smooth=0.2)(model, batch, Noise())
    torch.testing.assert_close(smooth, gaussian_blurred(plain, 1.6, "zero"))


def test_the_cost_counts_areas_and_games() -> None:
    setting = Setting(10, 32, 32)
    assert ExtremalPerturbation().cost(setting).forwards == 800
    assert ExtremalPerturbation(areas=(0.1, 0.2), variant="dual").cost(setting).backwards == 3200


def test_several_areas_and_games_do_not_depend_on_the_rows_of_a_forward() -> None:
    model = small_classifier()
    batch = make_batch(model, 3)
    method = ExtremalPerturbation(areas=(0.1, 0.3), variant="dual", iterations=10)
    together = method(model, batch, Noise())
    for rows in (1, 3, 5):
        model.rows = rows
        torch.testing.assert_close(method(model, batch, Noise()), together, atol=1e-5, rtol=0)


def test_an_output_of_nan_stays_in_the_map_of_its_image() -> None:
    class Sharp(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            # A black image has logits of NaN.
            return images.mean((2, 3)) / images.amax((1, 2, 3), keepdim=True)[:, :, 0, 0].sqrt().square()

    model = Classifier(Sharp(), classes=3)
    batch = make_batch(model, 2)
    batch.images[0] = 0
    method = ExtremalPerturbation(iterations=3, step=1, sigma=2.0)
    maps = method(model, batch, Noise())
    alone = method(model, Batch(batch.images[1:], batch.targets[1:], batch.ids[1:]), Noise())
    assert maps[0].isnan().all()
    torch.testing.assert_close(maps[1:], alone)

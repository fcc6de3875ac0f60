"""RISE against the paper's formula, the published masks and the expectation on a linear model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.transform import resize
from small_models import linear_classifier, make_batch, small_classifier
from torch import Tensor

from pipeline.contracts import Batch
from pipeline.fill import filled
from pipeline.methods.rise import Rise, random_masks
from pipeline.noise import Noise


@pytest.mark.parametrize(("size", "cells"), [((32, 32), 7), ((37, 50), 7), ((8, 8), 7), ((5, 9), 7), ((8, 9), 1)])
def test_masks_are_those_of_the_published_code(size: tuple[int, int], cells: int) -> None:
    generator = np.random.default_rng(3)
    sides = [math.ceil(side / cells) for side in size]
    grids = (generator.random((6, cells, cells)) < 0.5).astype(np.float32)
    shifts = np.stack([generator.integers(0, side, 6) for side in sides], axis=1)
    expected = []
    for grid, (row, column) in zip(grids, shifts, strict=True):
        large = tuple((cells + 1) * side for side in sides)
        enlarged = resize(grid, large, order=1, mode="reflect", anti_aliasing=False)
        expected.append(enlarged[row : row + size[0], column : column + size[1]])
    found = random_masks(torch.from_numpy(grids), torch.from_numpy(shifts), size)
    np.testing.assert_allclose(found[:, 0].numpy(), np.stack(expected), atol=1e-5)


def slow_rise(method: Rise, model: torch.nn.Module, batch: Batch, noise: Noise) -> Tensor:
    """Equation 6, one image and one mask at a time."""
    size = tuple(batch.images.shape[2:])
    grids, shifts = method._draws(noise, size)
    fill = filled(method.fill, model, batch.images)
    maps = torch.zeros(len(batch), 1, *size, dtype=torch.float64)
    for image, under, target, total in zip(batch.images, fill, batch.targets, maps, strict=True):
        for grid, shift in zip(grids, shifts, strict=True):
            mask = random_masks(grid[None], shift[None], size)
            with torch.no_grad():
                score = F.softmax(model(mask * image + (1 - mask) * under), 1)[0, target]
            total += score.double() * mask[0]
    return (maps / len(grids) / method.keep).float()


@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.parametrize("fill", ["black", "blur"])
def test_a_map_is_equation_6(rows: int, fill: str) -> None:
    model = small_classifier()
    model.rows = rows
    batch = make_batch(model, 4, size=12)
    method = Rise(masks=25, cells=3, keep=0.3, fill=fill)
    torch.testing.assert_close(
        method(model, batch, Noise(5)), slow_rise(method, model, batch, Noise(5)), atol=1e-5, rtol=1e-4
    )


def test_the_mean_mask_is_the_keep_probability() -> None:
    # With a score that is always 1 the map is the mean mask over p, so 1 everywhere: the division by p is there.
    model = linear_classifier(classes=1, size=14)
    batch = make_batch(model, 1, size=14)
    found = Rise(masks=6000, keep=0.25)(model, batch, Noise())
    # A mask's value has at most the standard deviation of one cell, sqrt(p (1 - p)).
    deviation = math.sqrt(0.75 / 0.25 / 6000)
    assert (found - 1).abs().max() < 5 * deviation


def test_on_a_linear_model_more_weight_lies_where_the_evidence_is() -> None:
    # For f = Σ w·x with masks m: E[f(x∘m)·m] / p = p·f(x) + Σ_j w_j·x_j·cov(m, m_j) / p, so the largest value lies at
    # the only pixels that count.
    model = linear_classifier(classes=2, size=28)
    with torch.no_grad():
        weights = torch.zeros(2, 3, 28, 28)
        weights[0, :, 4:8, 20:24] = 1.0
        model.network[1].weight.copy_(weights.flatten(1))
        model.network[1].bias.zero_()
    batch = Batch(torch.full((1, 3, 28, 28), 0.5), torch.tensor([0]), ("a",))
    found = Rise(masks=3000, output="logit")(model, batch, Noise())[0, 0]
    place = divmod(int(found.argmax()), 28)
    assert 3 <= place[0] <= 8 and 19 <= place[1] <= 24
    total = 0.5 * 48
    far = found[16:, :10].mean().item()
    assert far == pytest.approx(0.5 * total, rel=0.05)


def test_masks_do_not_depend_on_how_many_images_there_are_but_on_the_seed() -> None:
    model = small_classifier()
    batch = make_batch(model, 3)
    alone = Batch(batch.images[1:2], batch.targets[1:2], batch.ids[1:2])
    method = Rise(masks=40)
    together = method(model, batch, Noise(2))
    torch.testing.assert_close(method(model, alone, Noise(2)), together[1:2], atol=1e-6, rtol=0)
    assert not torch.allclose(method(model, alone, Noise(3)), together[1:2], atol=1e-3)

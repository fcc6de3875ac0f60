"""Meaningful perturbation against a slow re-implementation, and on a model whose evidence lies in one place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from small_models import drawn, make_batch, small_classifier
from torch import Tensor, nn

from pipeline.contracts import Batch, Setting
from pipeline.methods.meaningful_perturbation import MeaningfulPerturbation, _variation_gradient
from pipeline.methods.smooth_mask import gaussian_blurred
from pipeline.models import Classifier
from pipeline.noise import Noise

SIZE = 16
UNIT = SIZE / 224


def test_the_blur_is_scipys() -> None:
    images = drawn("image", 2, 3, 9, 12)
    for border, mode in (("edge", "nearest"), ("zero", "constant")):
        expected = gaussian_filter(images.double().numpy(), (0, 0, 1.5, 1.5), mode=mode, truncate=4)
        torch.testing.assert_close(gaussian_blurred(images, 1.5, border), torch.from_numpy(expected).float())


def test_the_gradient_of_the_variation_is_autograds() -> None:
    grid = drawn("grid", 2, 4, 5).requires_grad_(True)
    value = (grid.diff(dim=1).abs() ** 3).sum() + (grid.diff(dim=2).abs() ** 3).sum()
    torch.testing.assert_close(_variation_gradient(grid.detach(), 3.0), torch.autograd.grad(value, grid)[0])


def slow_start(model: Classifier, image: np.ndarray, target: int, cells: int) -> np.ndarray:
    """The smallest circle that takes 99 %, circle by circle."""
    removed = gaussian_filter(image, (0, 10 * UNIT, 10 * UNIT), mode="nearest")

    def score(mask: np.ndarray) -> float:
        shown = torch.from_numpy(mask * image + (1 - mask) * removed).float()[None]
        return float(F.softmax(model(shown), 1)[0, target])

    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    whole, least = score(np.ones((SIZE, SIZE))), score(np.zeros((SIZE, SIZE)))
    for radius in range(5, 175, 5):
        circle = (np.sqrt(x**2 + y**2) <= radius * UNIT).astype(float)
        mask = 1 - gaussian_filter(circle, 10 * UNIT, mode="nearest")
        if radius == 170 or (score(mask) - least) / (whole - least) <= 0.01:
            break
    mask = np.zeros((SIZE, SIZE)) if radius == 170 else mask
    centres = [int((cell + 0.5) * SIZE / cells) for cell in range(cells)]
    return mask[np.ix_(centres, centres)]


def slow_perturbation(
    model: Classifier, image: Tensor, target: int, shifts: np.ndarray, *, cells: int, start: str
) -> Tensor:
    """One mask by autograd and PyTorch's Adam."""
    pixels = image.double().numpy()
    removed = gaussian_filter(pixels, (0, 10 * UNIT, 10 * UNIT), mode="nearest")
    first = np.ones((cells, cells)) if start == "ones" else slow_start(model, pixels, target, cells)
    grid = torch.tensor(first, dtype=torch.float32, requires_grad=True)
    optimiser = torch.optim.Adam([grid], lr=0.1)
    block = SIZE // cells
    blur = torch.from_numpy(gaussian_filter(np.eye(SIZE), (5 * UNIT, 0), mode="nearest")).float()

    def enlarged() -> Tensor:
        return blur @ grid.repeat_interleave(block, 0).repeat_interleave(block, 1) @ blur.T

    def moved(array: np.ndarray, shift: np.ndarray) -> Tensor:
        padded = np.pad(array, ((0, 0), (2, 1), (2, 1)), mode="edge")
        return torch.from_numpy(padded[:, shift[0] : shift[0] + SIZE, shift[1] : shift[1] + SIZE].copy()).float()

    for shift in shifts:
        mask = enlarged()
        shown = mask * moved(pixels, shift) + (1 - mask) * moved(removed, shift)
        variation = (grid.diff(dim=0).abs() ** 3).sum() + (grid.diff(dim=1).abs() ** 3).sum()
        # |1 − m| with the authors' sign: no pull at m = 1.
        loss = F.softmax(model(shown[None]), 1)[0, target] + 1e-4 * (1 - grid).abs().sum() + 1e-2 * variation
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        grid.data.clamp_(0, 1)
    return 1 - enlarged().detach()


@pytest.mark.parametrize("start", ["circle", "ones"])
def test_masks_are_those_of_the_slow_reimplementation(start: str) -> None:
    model = small_classifier()
    batch = make_batch(model, 2, size=SIZE)
    method = MeaningfulPerturbation(iterations=12, cells=8, jitter=4, start=start)
    noise = Noise(7)
    expected = [
        slow_perturbation(
            model,
            image,
            int(target),
            noise.generator("meaningful_perturbation", name).integers(0, 4, (12, 2)),
            cells=8,
            start=start,
        )
        for image, target, name in zip(batch.images, batch.targets, batch.ids, strict=True)
    ]
    torch.testing.assert_close(method(model, batch, noise)[:, 0], torch.stack(expected), atol=1e-4, rtol=0)


def one_patch_classifier(rows: slice, columns: slice) -> Classifier:
    """Its first class is the more probable the more contrast one patch has; nothing else counts."""

    class Contrast(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            patch = images[:, :, rows, columns]
            texture = patch - F.avg_pool2d(patch, 3, 1, 1)
            logit = 100 * texture.square().mean((1, 2, 3)) - 3
            return torch.stack([logit, torch.zeros_like(logit)], 1)

    return Classifier(Contrast(), classes=2)


@pytest.mark.parametrize("start", ["circle", "ones"])
def test_the_map_lies_on_the_only_patch_that_counts(start: str) -> None:
    rows, columns = slice(2, 7), slice(8, 13)
    model = one_patch_classifier(rows, columns)
    ids = ("a", "b")
    batch = Batch(Noise(3).uniform("image", ids, (3, SIZE, SIZE)), torch.zeros(2, dtype=torch.long), ids)
    maps = MeaningfulPerturbation(iterations=60, start=start)(model, batch, Noise())[:, 0]
    outside = maps.clone()
    outside[:, rows, columns] = 0
    assert (maps[:, rows, columns].mean((1, 2)) > 2.5 * outside.sum((1, 2)) / (SIZE**2 - 25)).all()
    top = maps.flatten(1).argmax(1)
    assert ((top // SIZE >= 2) & (top // SIZE < 7) & (top % SIZE >= 8) & (top % SIZE < 13)).all()


def test_the_map_takes_the_evidence_away() -> None:
    model = one_patch_classifier(slice(4, 12), slice(2, 10))
    batch = make_batch(model, 3, size=SIZE)
    maps = MeaningfulPerturbation(iterations=40)(model, batch, Noise())
    assert maps.min() >= -1e-6 and maps.max() <= 1 + 1e-6
    shown = torch.lerp(batch.images, gaussian_blurred(batch.images, 10 * UNIT, "edge"), maps)
    with torch.no_grad():
        before, after = (F.softmax(model(images), 1) for images in (batch.images, shown))
    own = batch.targets[:, None]
    assert (after.gather(1, own) < 0.5 * before.gather(1, own)).all()


def test_the_jitter_is_drawn_by_sample() -> None:
    model = small_classifier()
    batch = make_batch(model, 2)
    method = MeaningfulPerturbation(iterations=5)
    maps = method(model, batch, Noise(1))
    torch.testing.assert_close(method(model, batch, Noise(1)), maps)
    assert not torch.allclose(method(model, batch, Noise(2)), maps, atol=1e-3)
    still = MeaningfulPerturbation(iterations=5, jitter=1)
    torch.testing.assert_close(still(model, batch, Noise(1)), still(model, batch, Noise(2)))


def test_an_oblong_image_has_square_cells() -> None:
    model = small_classifier()
    images = Noise(1).uniform("image", ["a"], (3, 8, 16))
    maps = MeaningfulPerturbation(iterations=2, cells=4, mask_blur=0)(
        model, Batch(images, torch.ones(1).long(), ("a",)), Noise()
    )
    blocks = maps[0, 0].view(4, 2, 8, 2)
    assert torch.equal(blocks, blocks[:, :1, :, :1].expand_as(blocks))


def test_the_cost_counts_the_circles() -> None:
    setting = Setting(10, 224, 224)
    assert MeaningfulPerturbation().cost(setting).forwards == 300 + 35
    assert MeaningfulPerturbation(start="ones").cost(setting).forwards == 300

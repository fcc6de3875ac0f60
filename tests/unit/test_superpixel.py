"""Superpixels: what they follow, how they are numbered, and on which images they can be found."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from skimage.measure import label
from small_models import drawn
from torch import Tensor

from pipeline.contracts import Segmentation
from pipeline.superpixel import superpixels


def patchwork(height: int, width: int) -> Tensor:
    """An image of coloured patches with a grain, (3, H, W) uint8."""
    patches = drawn("patches", 3, 6, 6)
    smooth = torch.nn.functional.interpolate(patches[None], (height, width), mode="bilinear")[0]
    return ((smooth + drawn("grain", 3, height, width, high=0.1)) / 1.1 * 255).to(torch.uint8)


def test_superpixels_follow_an_edge_of_colour() -> None:
    image = torch.zeros(3, 10, 20, dtype=torch.uint8)
    image[0, :, :7] = 255
    image[2, :, 7:] = 255
    found = superpixels(image, Segmentation(count=2, compactness=0.1))
    assert torch.equal(found, (torch.arange(20) >= 7).int().expand(10, 20))


@pytest.mark.parametrize(("height", "width", "count"), [(64, 64, 50), (48, 80, 100), (224, 224, 500)])
def test_superpixels_are_about_as_many_as_asked_for_and_each_is_connected(height: int, width: int, count: int) -> None:
    found = superpixels(patchwork(height, width), Segmentation(count=count))
    assert found.shape == (height, width) and found.dtype == torch.int32
    numbers = found.unique()
    assert torch.equal(numbers, torch.arange(len(numbers), dtype=torch.int32))
    assert 0.6 * count < len(numbers) < 1.4 * count
    pieces = label(found.numpy(), background=-1, connectivity=1)
    assert len(np.unique(pieces)) == len(numbers)


def test_bytes_and_their_share_of_255_have_the_same_superpixels() -> None:
    image = patchwork(96, 64)
    asked = Segmentation(count=120)
    expected = superpixels(image, asked)
    assert torch.equal(superpixels(image.float().div(255), asked), expected)
    assert torch.equal(superpixels(image.float() * (1 / 255), asked), expected)
    assert torch.equal(superpixels(image.double() / 255, asked), expected)


def test_superpixels_are_the_same_in_other_threads() -> None:
    image = patchwork(64, 64)
    asked = Segmentation(count=60)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: superpixels(image, asked), range(8)))
    assert all(torch.equal(one, found[0]) for one in found)


@pytest.mark.parametrize("shape", [(32, 32), (8, 8), (5, 3), (1, 9), (1, 1)])
def test_images_smaller_than_the_count_have_superpixels(shape: tuple[int, int]) -> None:
    found = superpixels(patchwork(*shape), Segmentation(count=500))
    assert found.shape == shape and found.min() == 0
    assert len(found.unique()) == int(found.max()) + 1 <= found.numel()


def test_a_flat_image_is_divided_evenly() -> None:
    found = superpixels(torch.full((3, 40, 40), 128, dtype=torch.uint8), Segmentation(count=16))
    sizes = torch.bincount(found.flatten())
    assert len(sizes) == 16 and sizes.min() >= 80 and sizes.max() <= 125

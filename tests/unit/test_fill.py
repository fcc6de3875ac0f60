"""Fills and baselines."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate, gaussian_filter
from small_models import make_batch, small_classifier

from pipeline.fill import blurred, filled


def test_blur_is_the_published_kernel_on_the_normalised_image_with_zero_padding() -> None:
    model = small_classifier()
    images = make_batch(model, 2, 16).images
    impulse = np.zeros((11, 11))
    impulse[5, 5] = 1
    kernel = gaussian_filter(impulse, 5)
    normalised = ((images - model.mean) / model.std).double().numpy()
    expected = np.stack([[correlate(channel, kernel, mode="constant") for channel in image] for image in normalised])
    found = (blurred(model, images) - model.mean) / model.std
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_mean_is_zero_after_normalisation() -> None:
    model = small_classifier()
    mean = filled("mean", model, torch.rand(2, 3, 4, 4))
    assert ((mean - model.mean) / model.std).abs().max() == 0


@pytest.mark.parametrize(("fill", "value"), [("black", 0.0), ("white", 1.0)])
def test_constant_fills_are_in_pixel_scale(fill: str, value: float) -> None:
    assert (filled(fill, small_classifier(), torch.rand(1, 3, 4, 4)) == value).all()  # type: ignore[arg-type]

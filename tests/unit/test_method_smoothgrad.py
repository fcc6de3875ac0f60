"""SmoothGrad and its square against closed forms and against a loop over the noisy copies."""

from __future__ import annotations

import pytest
import torch
from small_models import linear_classifier, make_batch, settle, small_classifier
from torch import Tensor, nn

from pipeline.contracts import Batch
from pipeline.methods import Gradient, SmoothGrad, SmoothGradSquared
from pipeline.models import Classifier
from pipeline.noise import Noise


class Square(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values**2


def slow_gradients(model: Classifier, batch: Batch, row: int, samples: int, deviation: float) -> list[Tensor]:
    """The gradients of one image's noisy copies, one after the other."""
    found = []
    for draw in range(samples):
        noise = Noise(3).normal("smoothgrad", [batch.ids[row]], (3, 8, 8), draw)[0]
        copy = (batch.images[row] + deviation * noise).requires_grad_(True)
        logit = model(copy[None])[0, batch.targets[row]]
        found.append(torch.autograd.grad(logit, copy)[0])
    return found


@pytest.mark.parametrize("rows", [1, 4, 5, 64])
@pytest.mark.parametrize(("sigma_of", "sigma"), [("range", 0.15), ("absolute", 0.2)])
def test_smoothgrad_is_the_mean_over_noisy_copies_and_squared_the_mean_of_squares(
    rows: int, sigma_of: str, sigma: float
) -> None:
    model = small_classifier()
    model.rows = rows
    batch = make_batch(model, 3)
    # The first image is pale: its range is a third of the others'.
    batch.images[0] = 0.4 + batch.images[0] / 3
    parameters = {"samples": 7, "sigma": sigma, "sigma_of": sigma_of}
    mean = SmoothGrad.model_validate(parameters)(model, batch, Noise(3))
    squared = SmoothGradSquared.model_validate(parameters)(model, batch, Noise(3))
    for row, image in enumerate(batch.images):
        spread = image.max() - image.min() if sigma_of == "range" else 1.0
        gradients = torch.stack(slow_gradients(model, batch, row, 7, float(sigma * spread)))
        torch.testing.assert_close(mean[row], gradients.mean(0), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(squared[row], (gradients**2).mean(0), atol=1e-5, rtol=1e-4)


def test_on_a_linear_model_they_are_the_weights_and_their_squares() -> None:
    model = linear_classifier()
    batch = make_batch(model, size=4)
    weights = model.network[1].weight[batch.targets].view_as(batch.images)
    torch.testing.assert_close(SmoothGrad()(model, batch, Noise()), weights)
    torch.testing.assert_close(SmoothGradSquared()(model, batch, Noise()), weights**2)


@pytest.mark.parametrize(("sigma_of", "deviations"), [("range", [0.15, 0.05]), ("absolute", [0.15, 0.15])])
def test_sigma_is_a_share_of_each_images_own_range_or_absolute(sigma_of: str, deviations: list[float]) -> None:
    # Of w·x² the gradient is 2wx, so over the copies it varies by (2wσ)².
    network = settle(nn.Sequential(nn.Flatten(), Square(), nn.Linear(3 * 64, 2)))
    model = Classifier(network, classes=2)
    wide = make_batch(model, 1).images[0]
    wide = (wide - wide.min()) / (wide.max() - wide.min())
    batch = Batch(torch.stack([wide, 0.5 + wide / 3]), torch.tensor([1, 1]), ("wide", "pale"))
    method = SmoothGrad.model_validate({"samples": 400, "sigma_of": sigma_of})
    work = method.shared_work()(model, batch, Noise())
    variance = work["mean_square"] - work["mean"] ** 2
    slope = 2 * network[2].weight[1].view(3, 8, 8)
    for row, deviation in enumerate(deviations):
        found = (variance[row].sum() / (slope**2).sum()).sqrt().item()
        assert found == pytest.approx(deviation, rel=0.02)


def test_without_noise_they_are_the_gradient_and_its_square() -> None:
    model = small_classifier()
    batch = make_batch(model)
    gradient = Gradient(output="probability")(model, batch, Noise())
    still = {"samples": 3, "sigma": 0.0, "output": "probability"}
    torch.testing.assert_close(SmoothGrad.model_validate(still)(model, batch, Noise()), gradient)
    torch.testing.assert_close(SmoothGradSquared.model_validate(still)(model, batch, Noise()), gradient**2)


def test_both_finish_the_same_work() -> None:
    model = small_classifier()
    batch = make_batch(model)
    plain, squared = SmoothGrad(samples=4), SmoothGradSquared(samples=4)
    assert plain.shared_work() == squared.shared_work() != SmoothGrad(samples=5).shared_work()
    work = plain.shared_work()(model, batch, Noise())
    torch.testing.assert_close(plain.finish(batch, work), plain(model, batch, Noise()))
    torch.testing.assert_close(squared.finish(batch, work), squared(model, batch, Noise()))


def test_forwards_are_full_across_images_and_copies() -> None:
    model = small_classifier()
    model.rows = 8
    batch = make_batch(model, 3)
    sizes = []
    handle = model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    SmoothGrad(samples=7)(model, batch, Noise())
    handle.remove()
    assert sizes == [8, 8, 5]

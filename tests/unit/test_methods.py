"""Methods against closed forms and against slow, obvious re-implementations from the papers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_models import linear_classifier, make_batch, small_classifier
from torch import Tensor

from pipeline.contracts import Batch
from pipeline.methods import GradCam, Gradient, GradientXInput, IntegratedGradients, Random
from pipeline.methods.enlarge import enlarged
from pipeline.methods.integrated_gradients import quadrature
from pipeline.models import Classifier
from pipeline.noise import Noise


def weights_of(model: Classifier, batch: Batch) -> Tensor:
    return model.network[1].weight[batch.targets].view_as(batch.images)


def test_gradient_of_a_linear_model_is_its_weights() -> None:
    model = linear_classifier()
    batch = make_batch(model, size=4)
    torch.testing.assert_close(Gradient()(model, batch, Noise()), weights_of(model, batch))


def test_gradient_of_the_probability_has_the_softmax_jacobian() -> None:
    model = linear_classifier()
    batch = make_batch(model, size=4)
    probability = F.softmax(model(batch.images), 1)
    own = probability.gather(1, batch.targets[:, None])
    mean_weights = (probability @ model.network[1].weight).view_as(batch.images)
    expected = own.view(-1, 1, 1, 1) * (weights_of(model, batch) - mean_weights)
    torch.testing.assert_close(Gradient(output="probability")(model, batch, Noise()), expected)


def test_gradient_x_input_of_a_linear_model_is_complete_against_black() -> None:
    model = linear_classifier()
    batch = make_batch(model, size=4)
    total = GradientXInput()(model, batch, Noise()).flatten(1).sum(1)
    logit = model(batch.images).gather(1, batch.targets[:, None])[:, 0]
    black = model(torch.zeros_like(batch.images)).gather(1, batch.targets[:, None])[:, 0]
    torch.testing.assert_close(total, logit - black)


@pytest.mark.parametrize("baseline", ["black", "white", "mean", "blur"])
def test_integrated_gradients_sum_to_the_change_of_the_output(baseline: str) -> None:
    from pipeline.fill import filled

    model = small_classifier()
    batch = make_batch(model)
    method = IntegratedGradients(steps=100, baseline=baseline, quadrature="riemann_middle")
    total = method(model, batch, Noise()).flatten(1).sum(1)
    with torch.no_grad():
        start = model(filled(baseline, model, batch.images).contiguous())
        change = (model(batch.images) - start).gather(1, batch.targets[:, None])[:, 0]
    torch.testing.assert_close(total, change, rtol=0.01, atol=1e-3)


@pytest.mark.parametrize("rule", ["gauss_legendre", "riemann_right", "riemann_middle", "trapezoid"])
def test_quadrature_weights_sum_to_one(rule: str) -> None:
    points, weights = quadrature(rule, 7)
    assert sum(weights) == pytest.approx(1) and len(points) == len(weights) == 7


def test_right_riemann_points_are_those_of_the_paper() -> None:
    assert quadrature("riemann_right", 4) == ([0.25, 0.5, 0.75, 1.0], [0.25] * 4)


def test_grad_cam_is_equation_1_and_2() -> None:
    model = small_classifier()
    batch = make_batch(model)
    expected = []
    for image, target in zip(batch.images, batch.targets, strict=True):
        normalised = ((image[None] - model.mean) / model.std).requires_grad_(True)
        features = model.network[:4](normalised)
        features.retain_grad()
        model.network[4:](features)[0, target].backward()
        alpha = features.grad[0].mean((1, 2))
        cam = sum(alpha[k] * features[0, k].detach() for k in range(len(alpha))).clamp(min=0)
        expected.append(F.interpolate(cam[None, None], size=(8, 8), mode="bilinear", align_corners=False))
    torch.testing.assert_close(GradCam(layer="3")(model, batch, Noise()), torch.cat(expected))


def test_grad_cam_may_keep_negative_evidence() -> None:
    model = small_classifier()
    batch = make_batch(model)
    signed = GradCam(layer="3", relu=False)(model, batch, Noise())
    assert signed.min() < 0


def test_random_maps_differ_between_samples_and_seeds() -> None:
    model = small_classifier()
    batch = make_batch(model, 2)
    first, second = Random()(model, batch, Noise(0)), Random()(model, batch, Noise(1))
    assert not torch.equal(first[0], first[1]) and not torch.equal(first, second)
    assert np.isclose(first.mean().item(), 0.5, atol=0.1)


@pytest.mark.parametrize(
    ("small", "large"), [((4, 4), (32, 32)), ((13, 7), (224, 100)), ((3, 3), (3, 3)), ((8, 8), (5, 6))]
)
def test_enlarging_is_bilinear_interpolation(small: tuple[int, int], large: tuple[int, int]) -> None:
    maps = Noise().normal("m", ["a", "b"], (1, *small))
    expected = F.interpolate(maps, size=large, mode="bilinear", align_corners=False)
    torch.testing.assert_close(enlarged(maps, *large), expected, atol=1e-5, rtol=1e-5)


def test_enlarging_keeps_flat_places_flat() -> None:
    maps = torch.full((1, 1, 4, 4), 0.1234567)
    assert (enlarged(maps, 30, 30) == maps[0, 0, 0, 0]).all()


def test_gradient_and_gradient_x_input_finish_the_same_work() -> None:
    model = small_classifier()
    batch = make_batch(model)
    plain, times = Gradient(output="probability"), GradientXInput(output="probability")
    assert plain.shared_work() == times.shared_work() != Gradient().shared_work()
    work = plain.shared_work()(model, batch, Noise())
    torch.testing.assert_close(plain.finish(batch, work), plain(model, batch, Noise()))
    torch.testing.assert_close(times.finish(batch, work), batch.images * plain(model, batch, Noise()))

"""Methods against closed forms and against slow, obvious re-implementations from the papers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_models import linear_classifier, make_batch, small_classifier
from torch import Tensor

from pipeline.contracts import Batch, Setting
from pipeline.methods import AGI, GradCam, Gradient, GradientXInput, IntegratedGradients, Random
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


def slow_agi(model: Classifier, image: Tensor, target: int, false: list[int], steps: int, size: float) -> Tensor:
    """Algorithms 1 and 2 of the paper, one path and one step at a time."""
    total = torch.zeros_like(image)
    for label in false:
        x, taken = image.clone(), 0
        while model(x[None]).argmax().item() != label and taken < steps:
            x = x.requires_grad_(True)
            probability = F.softmax(model(x[None]), 1)[0]
            toward = torch.autograd.grad(probability[label], x, retain_graph=True)[0]
            away = torch.autograd.grad(probability[target], x)[0]
            step = size * toward.sign()
            total = total - away * step
            x = (x + step).detach()
            taken += 1
    return total.detach()


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_agi_is_algorithms_1_and_2_with_the_same_draws(rows: int) -> None:
    model = small_classifier(classes=6)
    model.rows = rows
    batch = make_batch(model, 4)
    found = AGI(classes=3, steps=5)(model, batch, Noise(7))
    for row, (sample, target) in enumerate(zip(batch.ids, batch.targets.tolist(), strict=True)):
        others = [label for label in range(6) if label != target]
        false = Noise(7).choice("agi", sample, others, 3)
        expected = slow_agi(model, batch.images[row], target, false, 5, 0.05)
        torch.testing.assert_close(found[row], expected, atol=1e-6, rtol=1e-4)


def test_agi_paths_end_where_the_false_class_is_predicted() -> None:
    # Two classes on a line: from x = 0.1 the other class is reached after three steps of 0.05.
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))
    with torch.no_grad():
        network[2].weight.copy_(torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]))
        network[2].bias.copy_(torch.tensor([0.36, -0.36]))
    model = Classifier(network, classes=2)
    batch = Batch(torch.full((1, 3, 1, 1), 0.0), torch.tensor([0]), ("a",))
    seen = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    AGI(steps=20)(model, batch, Noise())
    # Class 1 wins as soon as x > 0.12, which 0.15 is.
    assert [round(float(x.mean()), 2) for x in seen] == [0.0, 0.05, 0.1, 0.15]


def test_agi_without_a_number_takes_every_false_class_where_there_are_fewer_than_20() -> None:
    assert AGI().cost(Setting(10, 32, 32)).forwards == 9 * 20
    assert AGI().cost(Setting(1000, 224, 224)).forwards == 20 * 20


def test_agi_objects_to_more_false_classes_than_there_are() -> None:
    model = small_classifier(classes=5)
    setting = Setting(5, 8, 8)
    assert AGI(classes=4).objection(model, setting) is None
    assert "4 false classes" in str(AGI(classes=5).objection(model, setting))


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

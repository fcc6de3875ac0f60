"""Passes through a classifier, counted."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from small_models import make_batch, small_classifier
from torch import Tensor

from pipeline.contracts import Batch
from pipeline.methods import Captum, GradCam, Gradient, LearnedPropagation
from pipeline.models import Classifier, last_spatial_layer
from pipeline.models.pass_counter import counting
from pipeline.noise import Noise


def test_images_are_counted_forwards_and_where_their_gradient_arrives() -> None:
    model = small_classifier()
    images = make_batch(model, 4).images
    pixels = images.clone().requires_grad_(True)
    with counting(model) as count:
        with torch.no_grad():
            model(images)
            model(pixels[:3])
        assert (count.forwards, count.backwards) == (7, 0)
        scores = model(pixels[1:])[:, 0]
        model(images)
        torch.autograd.grad(scores.sum(), pixels, retain_graph=True)
        assert (count.forwards, count.backwards) == (14, 3)
        torch.autograd.grad(scores.sum(), pixels)
        assert (count.forwards, count.backwards) == (14, 6)


def test_the_same_tensor_through_the_model_twice_counts_twice() -> None:
    model = small_classifier()
    pixels = make_batch(model, 2).images.requires_grad_(True)
    with counting(model) as count:
        for _ in range(3):
            torch.autograd.grad(model(pixels)[:, 0].sum(), pixels)
        assert (count.forwards, count.backwards) == (6, 6)
        torch.autograd.grad((model(pixels) + model(pixels))[:, 0].sum(), pixels)
    assert (count.forwards, count.backwards) == (10, 10)


def test_the_copy_of_a_lone_image_does_not_count() -> None:
    model = small_classifier()
    with counting(model) as count:
        Gradient()(model, make_batch(model, 1), Noise())
    assert (count.forwards, count.backwards) == (1 + 1, 1)  # `make_batch` predicts


def test_a_backward_that_ends_inside_the_network_does_not_count() -> None:
    model = small_classifier()
    batch = make_batch(model, 3)
    with counting(model) as count:
        GradCam(layer="3")(model, batch, Noise())
    assert (count.forwards, count.backwards) == (3, 0)


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
def test_what_the_hooks_of_others_add_to_the_images_counts() -> None:
    # DeepLift explains an image together with its baseline.
    model = small_classifier()
    batch = make_batch(model, 3)
    network = torch.nn.Sequential(*(torch.nn.ReLU() if isinstance(m, torch.nn.ReLU) else m for m in model.network))
    model = Classifier(network, classes=5)
    with counting(model) as count:
        Captum(attribution="DeepLift")(model, batch, Noise())
    assert count.forwards == 2 * 3


def test_results_layers_and_the_model_itself_are_as_without_it() -> None:
    model = small_classifier()
    batch = make_batch(model, 3)
    names = [name for name, _ in model.named_modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    methods = [Gradient(), GradCam(), LearnedPropagation(iterations=3)]
    expected = [method(model, batch, Noise()) for method in methods]
    with counting(model) as count:
        assert isinstance(model, Classifier) and [name for name, _ in model.named_modules()] == names
        assert last_spatial_layer(model.network, 8, 8) == last_spatial_layer(small_classifier().network, 8, 8)
        for method, maps in zip(methods, expected, strict=True):
            assert torch.equal(method(model, batch, Noise()), maps)
    assert count.forwards > 0 and count.backwards > 0
    assert type(model) is Classifier and vars(model).keys() == vars(small_classifier()).keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_block_that_fails_leaves_the_model_as_it_was() -> None:
    model = small_classifier()
    with pytest.raises(RuntimeError), counting(model) as count:
        model(torch.zeros(2, 7, 8, 8))
    assert type(model) is Classifier
    model(torch.zeros(2, 3, 8, 8))
    assert count.forwards == 2


def test_blocks_inside_each_other_each_count() -> None:
    model = small_classifier()
    images = torch.zeros(2, 3, 8, 8)
    with counting(model) as outer:
        model(images)
        with counting(model) as inner:
            model(images)
        model(images)
    assert (outer.forwards, inner.forwards) == (6, 2)


def test_another_model_is_not_counted_and_a_copy_computes_with_its_own_parameters() -> None:
    model, other = small_classifier(), small_classifier()
    images = make_batch(model, 2).images
    with counting(model) as count:
        other(images)
        assert count.forwards == 0
        copy = deepcopy(model)
        copy.network[6].bias += 1
        torch.testing.assert_close(copy(images), other(images) + 1)


def test_a_method_in_pieces_counts_all_of_them() -> None:
    model = small_classifier()
    batch = make_batch(model, 5)
    model.rows = 2
    with counting(model) as count:
        Gradient()(model, Batch(batch.images, batch.targets, batch.ids), Noise())
    assert (count.forwards, count.backwards) == (5, 5)


def test_gradients_of_gradients_are_as_without_it() -> None:
    def second(model: Classifier, pixels: Tensor) -> Tensor:
        first = torch.autograd.grad(model(pixels).softmax(1)[:, 0].sum(), pixels, create_graph=True)[0]
        return torch.autograd.grad(first.square().sum(), pixels)[0]

    model = small_classifier()
    pixels = make_batch(model, 2).images.requires_grad_(True)
    expected = second(model, pixels)
    with counting(model):
        assert torch.equal(second(model, pixels), expected)

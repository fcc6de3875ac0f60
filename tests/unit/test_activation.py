"""Activations handed to a rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from small_models import drawn, settle, small_classifier
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from pipeline.errors import FatalError
from pipeline.models import Classifier, ModelConfig, load_classifier
from pipeline.models.activation import (
    Activation,
    activation_kinds,
    rectified,
    replaced_activations,
    unruled,
)

RELU = {
    "module": nn.ReLU(),
    "in-place module": nn.ReLU(inplace=True),
    "functional": F.relu,
    "functional, in place by name": lambda x: F.relu(x, inplace=True),
    "functional, in place by position": lambda x: F.relu(x, True),
    "functional by keyword": lambda x: F.relu(input=x),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu by keyword": lambda x: torch.relu(input=x),
    "torch.relu_": torch.relu_,
    "method": lambda x: x.relu(),
    "in-place method": lambda x: x.relu_(),
    "clamp": lambda x: x.clamp(min=0),
    "clamp by position": lambda x: torch.clamp(x, 0),
    "clamp in place": lambda x: x.clamp_(min=0.0),
    "clip": lambda x: torch.clip(x, min=0),
    "clip in place": lambda x: x.clip_(0),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
    "clamp_min, method in place": lambda x: x.clamp_min_(0),
    "threshold": nn.Threshold(0, 0),
    "threshold in place": lambda x: F.threshold(x, 0, 0, True),
}
RELU6 = {
    "module": nn.ReLU6(),
    "in-place module": nn.ReLU6(inplace=True),
    "functional": lambda x: F.relu6(x, True),
    "clamp": lambda x: x.clamp(0, 6),
    "clamp in place": lambda x: torch.clamp_(x, min=0, max=6),
    "hardtanh": nn.Hardtanh(0, 6),
    "hardtanh in place": nn.Hardtanh(0, 6, inplace=True),
    "hardtanh_": lambda x: F.hardtanh_(x, 0.0, 6.0),
}
OTHERS = {
    "gelu": nn.GELU(approximate="tanh"),
    "silu": nn.SiLU(inplace=True),
    "hardswish": nn.Hardswish(inplace=True),
    "hardsigmoid": nn.Hardsigmoid(),
    "leaky_relu": nn.LeakyReLU(0.3, inplace=True),
    "elu": nn.ELU(0.5, inplace=True),
    "sigmoid": torch.sigmoid,
    "tanh": lambda x: x.tanh_(),
    "hardtanh": nn.Hardtanh(),
    "mish": nn.Mish(),
    "prelu": nn.PReLU(),
}
CALLS = [
    *(("relu", call) for call in RELU.items()),
    *(("relu6", call) for call in RELU6.items()),
    *((kind, (kind, call)) for kind, call in OTHERS.items()),
]


def plain(activation: Activation, features: Tensor) -> Tensor:
    return activation.function(features)


def natural(activation: Activation, features: Tensor) -> Tensor:
    """ReLU and ReLU6 with their own backward rule, in place where asked."""
    if activation.kind not in ("relu", "relu6"):
        return activation.function(features)
    return rectified(activation, features, lambda out, gradient, limit: gradient * (out > 0) * (out < limit))


@pytest.mark.parametrize("rule", [plain, natural])
@pytest.mark.parametrize(("kind", "call"), CALLS, ids=lambda value: value if isinstance(value, str) else value[0])
def test_every_way_to_call_one_is_seen(
    kind: str,
    call: tuple[str, Callable[[Tensor], Tensor]],
    rule: Callable[[Activation, Tensor], Tensor],
) -> None:
    function = call[1]
    pixels = drawn("pixels", 4, 5, low=-8, high=8).requires_grad_()
    expected = function(pixels * 1.0)
    gradient = torch.autograd.grad((expected * expected.detach().cos()).sum(), pixels)[0]
    seen = []

    def noting(activation: Activation, features: Tensor) -> Tensor:
        seen.append(activation.kind)
        return rule(activation, features)

    with replaced_activations(noting):
        found = function(pixels * 1.0)
    assert seen == [kind]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad((found * found.detach().cos()).sum(), pixels)[0], gradient)


@pytest.mark.parametrize(
    "call",
    [lambda x: x.clamp(max=0), lambda x: x.clamp(0, 1), lambda x: torch.clamp(x, torch.zeros(5)), F.softmax, torch.abs],
)
def test_what_is_no_activation_passes(call: Callable[..., Tensor]) -> None:
    with replaced_activations(lambda activation, features: pytest.fail(activation.kind)):
        call(drawn("pixels", 4, 5)) if call is not F.softmax else call(drawn("pixels", 4, 5), dim=1)


def test_whether_it_was_asked_in_place_is_told() -> None:
    asked = []

    def note(activation: Activation, features: Tensor) -> Tensor:
        asked.append(activation.in_place)
        return activation.function(features)

    with replaced_activations(note):
        for call in (F.relu, F.relu_, nn.ReLU(inplace=True), nn.ReLU6(), lambda x: x.clamp_(min=0)):
            call(drawn("pixels", 4, 5) * 1.0)
    assert asked == [False, True, True, False, True]


def test_calls_are_counted_in_order_and_each_call_of_a_reused_module_counts() -> None:
    reused = nn.ReLU(inplace=True)
    network = nn.Sequential(nn.Linear(3, 3), reused, nn.GELU(), nn.Linear(3, 3), reused, nn.SiLU())
    seen = []

    def note(activation: Activation, features: Tensor) -> Tensor:
        seen.append((activation.index, activation.kind))
        return activation.function(features)

    for _ in range(2):
        seen.clear()
        with replaced_activations(note):
            network(drawn("pixels", 2, 3))
        assert seen == [(0, "relu"), (1, "gelu"), (2, "relu"), (3, "silu")]


def shared_with_sum(x: Tensor) -> Tensor:
    y = x * 2
    F.relu_(x)
    return x + y


def shortcut(x: Tensor) -> Tensor:
    """Before the activation, and yet the shortcut sees it changed (pre-activation ResNets with in-place ReLUs)."""
    return F.relu(x, inplace=True).square() * 0.1 + x


def changed_part(x: Tensor) -> Tensor:
    """What is changed is a part of another tensor."""
    F.relu_(x[:, :2])
    return x * x


def in_a_list(x: Tensor) -> Tensor:
    gathered = [x, x + 1]
    F.relu_(gathered[0])
    return torch.stack(gathered)


def own_result(x: Tensor) -> Tensor:
    """The changed tensor itself is what the network returns."""
    F.relu_(x)
    return x


ALIASED = [shared_with_sum, shortcut, changed_part, in_a_list]


@pytest.mark.parametrize(
    ("rule", "function"),
    [(rule, function) for rule in (plain, natural) for function in ALIASED] + [(natural, own_result)],
)
def test_whoever_holds_the_tensor_finds_it_changed(
    rule: Callable[[Activation, Tensor], Tensor], function: Callable[[Tensor], Tensor]
) -> None:
    pixels = drawn("pixels", 4, 5, low=-3, high=3).requires_grad_()
    expected = function(pixels * 1.0)
    gradient = torch.autograd.grad(expected.sum(), pixels)[0]
    with replaced_activations(rule):
        found = function(pixels * 1.0)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), pixels)[0], gradient)


def test_a_tensor_can_be_changed_several_times() -> None:
    def function(x: Tensor) -> Tensor:
        F.relu_(x)
        x -= 1
        x.relu_()
        F.hardswish(x.view(-1)[3:9], inplace=True)
        return torch.cat([x, x * 2])

    pixels = drawn("pixels", 4, 5, low=-3, high=3)
    expected = function(pixels.clone())
    for rule in (plain, natural):
        with replaced_activations(rule):
            assert torch.equal(function(pixels.clone()), expected)


def test_a_rule_may_return_its_input() -> None:
    with replaced_activations(lambda activation, features: features):
        x = drawn("pixels", 4, 5, low=-1) * 1.0
        torch.testing.assert_close(shortcut(x), x.square() * 0.1 + x)


def test_the_rules_backward_is_what_runs() -> None:
    pixels = drawn("pixels", 4, 5, low=-8, high=8).requires_grad_()
    arrived = []

    def backward(out: Tensor, gradient: Tensor, limit: float) -> Tensor:
        arrived.append((out, gradient, limit))
        return gradient + 3

    with replaced_activations(lambda activation, features: rectified(activation, features, backward)):
        out = F.relu6(pixels * 2)
    gradient = torch.autograd.grad(out.sum(), pixels)[0]
    torch.testing.assert_close(gradient, torch.full((4, 5), 8.0))
    assert len(arrived) == 1 and arrived[0][2] == 6
    torch.testing.assert_close(arrived[0][0], F.relu6(pixels * 2))


def test_a_rectifiers_rule_refuses_other_kinds() -> None:
    with (
        pytest.raises(FatalError, match="gelu"),
        replaced_activations(lambda activation, features: rectified(activation, features, lambda a, g, _: g)),
    ):
        F.gelu(drawn("pixels", 4, 5))


def test_nothing_is_left_after_an_exception() -> None:
    model = small_classifier()
    images = drawn("images", 2, 3, 8, 8)
    expected = model(images)

    def failing(activation: Activation, features: Tensor) -> Tensor:
        if activation.index == 1:
            raise RuntimeError("enough")
        return features * 0

    for _ in range(2):
        with pytest.raises(RuntimeError, match="enough"), replaced_activations(failing):
            model(images)
    assert not _get_current_function_mode_stack()
    assert torch.equal(model(images), expected)


@pytest.mark.parametrize(
    ("name", "size", "kinds", "count"),
    [
        ("resnet18", 64, {"relu"}, 17),
        ("resnet50", 64, {"relu"}, 49),
        ("inception_v3", 96, {"relu"}, 94),
        ("densenet121", 64, {"relu"}, 121),
        ("mobilenet_v2", 64, {"relu6"}, 35),
        ("squeezenet1_0", 64, {"relu"}, 26),
    ],
)
def test_networks_have_as_many_calls_as_they_should(name: str, size: int, kinds: set[str], count: int) -> None:
    network = load_classifier(ModelConfig(name=name, weights="random"), classes=4)
    found = activation_kinds(network, size, size)
    assert (set(found), len(found)) == (kinds, count)


@pytest.mark.parametrize("name", ["densenet121", "resnet18", "mobilenet_v2"])
def test_networks_give_the_same_values_and_gradients(name: str) -> None:
    model = load_classifier(ModelConfig(name=name, weights="random"), classes=4)
    pixels = drawn("pixels", 2, 3, 64, 64).requires_grad_()
    expected = model(pixels)
    gradient = torch.autograd.grad(expected[:, 0].sum(), pixels)[0]
    for rule in (plain, natural):
        with replaced_activations(rule):
            found = model(pixels)
        torch.testing.assert_close(found, expected)
        given = torch.autograd.grad(found[:, 0].sum(), pixels)[0]
        torch.testing.assert_close(given, gradient, atol=1e-5 * float(gradient.abs().max()), rtol=1e-4)


class ViewBefore(nn.Module):
    """A view that was made before its base is changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(32, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
        part = features[:, :2]
        F.relu_(features)
        logits: Tensor = self.head(part.flatten(1))
        return logits


class OwnResult(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return own_result(features)


@pytest.mark.parametrize("network", [ViewBefore(), nn.Sequential(nn.Flatten(), nn.Linear(48, 3), OwnResult())])
def test_a_change_in_place_that_a_rule_would_hide_is_objected_to(network: nn.Module) -> None:
    model = Classifier(settle(network, 3.0), classes=3)
    with pytest.raises(FatalError, match="replaced by itself"):
        activation_kinds(model, 4, 4)
    reason = unruled("some_method", model, 4, 4, ("relu",))
    assert reason is not None and reason.startswith("some_method: the logits change") and "\n" not in reason


def test_nan_weights_are_not_mistaken_for_a_hidden_change() -> None:
    model = small_classifier()
    with torch.no_grad():
        model.network.get_submodule("6").weight[0, 0] = float("nan")
    assert activation_kinds(model, 8, 8) == ("relu", "relu")


def test_kinds_without_a_rule_are_named() -> None:
    smooth = nn.Sequential(nn.Flatten(), nn.Linear(48, 3), nn.SiLU(), nn.GELU(), nn.ReLU())
    reason = unruled("some_method", Classifier(settle(smooth), classes=3), 4, 4, ("relu",))
    assert reason is not None and reason.startswith("some_method") and "silu, gelu" in reason
    assert unruled("some_method", Classifier(smooth, classes=3), 4, 4, ("relu", "gelu", "silu")) is None
    without = unruled("some_method", Classifier(nn.Sequential(nn.Flatten()), classes=48), 4, 4, ("relu",))
    assert without is not None and "no activation" in without

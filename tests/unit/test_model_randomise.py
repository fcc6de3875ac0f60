"""Randomised copies of a model: what is drawn, what is shared, and what is left as it was."""

from __future__ import annotations

import math

import pytest
import torch
from small_models import settle, small_classifier
from torch import Tensor, nn

from pipeline.errors import FatalError
from pipeline.models import Classifier, build_network
from pipeline.models.block import network_parts
from pipeline.models.randomise import Randomisation, RandomisedModels
from pipeline.noise import Noise

BLOCKS = ("linear", "layer3.0", "layer2.0", "layer1.0", "conv1")


@pytest.fixture(scope="module")
def model() -> Classifier:
    network = settle(build_network("cifar_resnet8", 10)).to(memory_format=torch.channels_last)
    for name, buffer in network.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(Noise(3).uniform("buffer", [name], tuple(buffer.shape))[0] + 0.5)
        else:
            buffer.fill_(7)
    return Classifier(network, classes=10, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), digest="d", rows=3)


def randomised(model: Classifier, seed: int = 0, size: int = 32, **settings: object) -> RandomisedModels:
    return RandomisedModels(model, Randomisation.model_validate(settings), Noise(seed), size, size)


def tensors(model: Classifier) -> dict[str, Tensor]:
    return {**dict(model.network.named_parameters()), **dict(model.network.named_buffers())}


def drawn_at(step: int, order: str) -> list[str]:
    """Names of the parameters that a step draws anew."""
    own = BLOCKS[: step + 1] if order == "cascading" else BLOCKS[step : step + 1]
    names = dict(build_network("cifar_resnet8", 10).named_parameters())
    return [
        name for name in names for block in own if name.startswith((f"{block}.", "bn1" if block == "conv1" else block))
    ]


@pytest.mark.parametrize("order", ["cascading", "independent"])
@pytest.mark.parametrize("initialiser", ["normal", "own"])
def test_a_step_draws_its_blocks_anew_and_shares_the_rest(model: Classifier, order: str, initialiser: str) -> None:
    models = randomised(model, order=order, initialiser=initialiser)
    assert models.names == BLOCKS and len(models) == 5
    original = tensors(model)
    for step, copied in enumerate(models):
        drawn = drawn_at(step, order)
        for name, tensor in tensors(copied).items():
            if name in drawn:
                assert tensor.data_ptr() != original[name].data_ptr()
                assert not torch.equal(tensor, original[name])
            else:
                assert tensor is original[name]
        assert copied.mean is model.mean and copied.std is model.std


def test_all_steps_take_the_memory_of_one_further_model(model: Classifier) -> None:
    models = [model, *randomised(model)]
    held = {tensor.data_ptr(): tensor.nbytes for one in models for tensor in one.network.parameters()}
    assert sum(held.values()) == 2 * sum(tensor.nbytes for tensor in model.network.parameters())


def test_a_copy_is_built_once_and_when_it_is_asked_for(model: Classifier) -> None:
    models = randomised(model)
    assert models[2] is models[2] and models[-1] is models[4]
    assert [one is two for one, two in zip(models[1:3], (models[1], models[2]), strict=True)] == [True, True]
    with pytest.raises(IndexError):
        models[5]


@pytest.mark.parametrize("initialiser", ["normal", "own"])
@pytest.mark.parametrize("by", ["block", "layer"])
def test_both_orders_draw_the_same_for_a_block(model: Classifier, initialiser: str, by: str) -> None:
    one = randomised(model, order="cascading", initialiser=initialiser, by=by)
    other = randomised(model, order="independent", initialiser=initialiser, by=by)
    last = one[-1].network
    for step in range(len(other)):
        copied = other[step].network
        for name, parameter in copied.named_parameters():
            if parameter is not model.network.get_parameter(name):
                assert torch.equal(parameter, last.get_parameter(name))


def test_seed_and_repeat_decide_the_draw(model: Classifier) -> None:
    def weight(**settings: object) -> Tensor:
        return randomised(model, **settings)[0].network.get_parameter("linear.weight")  # type: ignore[arg-type]

    for initialiser in ("normal", "own"):
        first = weight(initialiser=initialiser)
        assert torch.equal(first, weight(initialiser=initialiser))
        assert not torch.equal(first, weight(initialiser=initialiser, repeat=1))
        assert not torch.equal(first, weight(initialiser=initialiser, seed=1))


@pytest.mark.parametrize("deviation", [0.01, 0.1])
def test_normal_draws_every_parameter_with_the_standard_deviation(model: Classifier, deviation: float) -> None:
    last = randomised(model, deviation=deviation)[-1].network
    for name, parameter in last.named_parameters():
        expected = deviation * Noise(0).normal("randomised", [name], tuple(parameter.shape))[0]
        assert torch.equal(parameter, expected)
    everything = torch.cat([parameter.flatten() for parameter in last.parameters()])
    # 77,000 numbers: five standard errors of a mean and of a deviation.
    error = 5 * deviation / math.sqrt(len(everything))
    assert everything.mean().item() == pytest.approx(0, abs=error)
    assert everything.std().item() == pytest.approx(deviation, abs=error)


def test_own_draws_what_the_layers_initialisers_give(model: Classifier) -> None:
    last = randomised(model, initialiser="own")[-1].network
    for name, module in last.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()
        elif isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            # Uniform in ± 1 / √fan_in, which the largest of some hundred numbers nearly reaches.
            assert module.weight.abs().max().item() == pytest.approx(fan_in**-0.5, rel=0.03), name
            assert module.weight.abs().max() <= fan_in**-0.5


def test_statistics_are_kept_or_start_afresh(model: Classifier) -> None:
    kept, fresh = randomised(model)[-1], randomised(model, statistics="reset")
    assert all(buffer is model.network.get_buffer(name) for name, buffer in kept.network.named_buffers())
    for name, buffer in fresh[-1].network.named_buffers():
        start = {"running_mean": 0, "running_var": 1, "num_batches_tracked": 0}[name.rpartition(".")[2]]
        assert (buffer == start).all() and not (model.network.get_buffer(name) == start).all()
    # Those of blocks that are not drawn yet stay.
    assert fresh[1].network.get_buffer("layer3.0.bn1.running_mean").eq(0).all()
    assert fresh[1].network.get_buffer("layer2.0.bn1.running_mean") is model.network.get_buffer(
        "layer2.0.bn1.running_mean"
    )


@pytest.mark.parametrize("initialiser", ["normal", "own"])
def test_the_model_and_the_global_generator_are_left_alone(model: Classifier, initialiser: str) -> None:
    before = {name: tensor.clone() for name, tensor in tensors(model).items()}
    state = torch.get_rng_state()
    for copied in randomised(model, initialiser=initialiser, statistics="reset"):
        copied(torch.zeros(2, 3, 32, 32))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(model).items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_copy_is_a_classifier_like_the_model(model: Classifier) -> None:
    models = randomised(model)
    copied = models[-1]
    assert (copied.classes, copied.rows) == (10, 3)
    assert not any(module.training for module in copied.modules())
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    assert len({model.digest, *(one.digest for one in models)}) == 6
    assert copied.network.get_parameter("layer3.0.conv2.weight").is_contiguous(memory_format=torch.channels_last)
    model.rows = 2
    assert models[-1].rows == 2
    model.rows = 3


def test_a_step_is_a_layer_on_demand(model: Classifier) -> None:
    models = randomised(model, by="layer")
    assert models.names == network_parts(model.network, 32, 32).names("layer")[::-1]
    assert models.names[:3] == ("linear", "layer3.0.bn2", "layer3.0.conv2")
    copied = models[1].network
    changed = [n for n, p in copied.named_parameters() if p is not model.network.get_parameter(n)]
    assert changed == ["layer3.0.bn2.weight", "layer3.0.bn2.bias", "linear.weight", "linear.bias"]


class Tokens(nn.Module):
    """A token without an initialiser, an attention whose initialiser has another name, and two names for one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.full((1, 1, 8), 3.0))
        self.embed = nn.Conv2d(3, 8, 4, stride=4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)
        self.again = self.head

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), tokens], 1)
        logits: Tensor = self.again(self.attention(tokens, tokens, tokens)[0][:, 0])
        return logits


def test_own_reaches_attention_and_draws_tokens_as_normal_does() -> None:
    model = Classifier(Tokens(), classes=3)
    models = randomised(model, size=8, initialiser="own", deviation=0.02)
    assert models.names == ("head", "attention", "token", "embed")
    last = models[-1].network
    expected = 0.02 * Noise(0).normal("randomised", ["token"], (1, 1, 8))[0]
    assert torch.equal(last.get_parameter("token"), expected)
    # Glorot's uniform numbers for 8 → 24 features: ± √(6 / 32).
    inward = last.get_parameter("attention.in_proj_weight")
    assert inward.abs().max().item() == pytest.approx(math.sqrt(6 / 32), rel=0.03)
    assert inward.abs().max() <= math.sqrt(6 / 32) and (last.get_parameter("attention.in_proj_bias") == 0).all()
    assert last.head is last.again


class Stubborn(nn.Linear):
    def reset_parameters(self, start: bool = False) -> None:
        if hasattr(self, "ready"):
            raise RuntimeError("not twice")
        self.ready = True
        super().reset_parameters()


def test_an_initialiser_that_fails_is_named() -> None:
    model = Classifier(nn.Sequential(nn.Flatten(), Stubborn(192, 2)), classes=2)
    with pytest.raises(FatalError, match=r"layer '1' \(Stubborn.reset_parameters\) fails: not twice; take initialiser"):
        randomised(model, size=8, initialiser="own")[0]
    assert len(list(randomised(model, size=8))) == 1


class Uncopied(nn.Linear):
    def __deepcopy__(self, memo: object) -> Uncopied:
        raise TypeError("cannot be copied")


def test_a_network_that_cannot_be_copied_is_refused() -> None:
    model = Classifier(nn.Sequential(nn.Flatten(), Uncopied(192, 2)), classes=2)
    with pytest.raises(FatalError, match="randomising it takes: cannot be copied"):
        randomised(model, size=8)[0]


def test_a_randomised_model_computes_with_what_was_drawn() -> None:
    model = small_classifier()
    images = Noise(5).uniform("image", ["a", "b"], (3, 8, 8))
    models = randomised(model, size=8)
    by_hand = small_classifier()
    with torch.no_grad():
        for name in ("6.weight", "6.bias", "2.weight", "2.bias"):
            parameter = by_hand.network.get_parameter(name)
            parameter.copy_(0.01 * Noise(0).normal("randomised", [name], tuple(parameter.shape))[0])
    assert models.names == ("6", "2", "0")
    assert torch.equal(models[1](images), by_hand(images))

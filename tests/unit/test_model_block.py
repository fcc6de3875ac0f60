"""Networks cut into blocks and layers, in the order in which they run."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from pipeline.errors import FatalError
from pipeline.models import build_network
from pipeline.models.block import network_parts


def blocks(name: str, size: int, classes: int = 10) -> tuple[str, ...]:
    return network_parts(build_network(name, classes), size, size).names("block")


def test_a_resnet_is_cut_into_its_residual_blocks() -> None:
    stages = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    assert blocks("resnet18", 32) == ("conv1", *stages, "fc")
    stages = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]
    assert blocks("cifar_resnet20", 32) == ("conv1", *stages, "linear")


def test_a_vgg_is_cut_into_its_convolutions_and_linear_layers() -> None:
    network = build_network("vgg11", 10)
    convolutions = [f"features.{index}" for index in (0, 3, 6, 8, 11, 13, 16, 18)]
    found = network_parts(network, 32, 32).names("block")
    assert found == (*convolutions, "classifier.0", "classifier.3", "classifier.6")
    # Inside a wrapper with a small head of its own, where no stack of blocks tells that it is a network.
    wrapper = nn.Sequential(network, nn.Linear(10, 2))
    assert network_parts(wrapper, 32, 32).names("block") == (*(f"0.{name}" for name in found), "1")


def test_inception_has_the_blocks_of_the_published_sanity_checks() -> None:
    stem = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"]
    mixed = [f"Mixed_{name}" for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")]
    assert blocks("inception_v3", 96) == (*stem, *mixed, "fc")


def test_densenet_is_cut_into_dense_layers_and_transitions() -> None:
    expected = ["features.conv0"]
    for block, layers in enumerate((6, 12, 24, 16), 1):
        expected += [f"features.denseblock{block}.denselayer{layer}" for layer in range(1, layers + 1)]
        expected += [f"features.transition{block}"] if block < 4 else []
    assert blocks("densenet121", 32) == (*expected, "features.norm5", "classifier")


def test_mobilenet_and_squeezenet_keep_their_modules_whole() -> None:
    assert blocks("mobilenet_v2", 32) == (*(f"features.{index}" for index in range(19)), "classifier.1")
    fires = [f"features.{index}" for index in (3, 4, 5, 7, 8, 9, 10, 12)]
    assert blocks("squeezenet1_0", 64) == ("features.0", *fires, "classifier.1")


def test_a_transformer_s_class_token_stands_where_it_is_used() -> None:
    network = VisionTransformer(32, 8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=10)
    encoder = [f"encoder.layers.encoder_layer_{index}" for index in range(3)]
    parts = network_parts(network, 32, 32)
    expected = ("conv_proj", "class_token", "encoder.pos_embedding", *encoder, "encoder.ln", "heads.head")
    assert parts.names("block") == expected
    attention = "encoder.layers.encoder_layer_0.self_attention"
    # The forward of `out_proj` is never called; its weights are used.
    assert {attention, f"{attention}.out_proj"} <= set(parts.names("layer"))


def test_stages_of_repeated_blocks_are_split_whatever_their_class() -> None:
    found = blocks("regnet_y_400mf", 32)
    assert found[:4] == ("stem", "trunk_output.block1", "trunk_output.block2.block2-0", "trunk_output.block2.block2-1")


@pytest.mark.parametrize(("name", "size"), [("googlenet", 64), ("swin_t", 64), ("cifar_cnn4", 32)])
def test_every_parameter_is_in_one_block_and_in_one_layer(name: str, size: int) -> None:
    network = build_network(name, 10)
    parts = network_parts(network, size, size)
    for kind in ("block", "layer"):
        names = [parameter for part in parts.of(kind) for parameter in part.parameters]
        assert sorted(names) == sorted(dict(network.named_parameters()))


def test_a_norm_belongs_to_the_convolution_before_it() -> None:
    parts = network_parts(build_network("resnet18", 10), 32, 32)
    assert parts.blocks[0].parameters == ("conv1.weight", "bn1.weight", "bn1.bias")
    assert parts.blocks[0].normalised == ("bn1",)
    assert [part.name for part in parts.layers[:3]] == ["conv1", "bn1", "layer1.0.conv1"]
    assert "layer2.0.downsample.1" in parts.blocks[3].normalised


class Shuffled(nn.Module):
    """Registered from the output to the image, with a module that nobody calls and one that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.unused = nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.ones(4))
        self.twice = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4, affine=False)
        self.first = nn.Conv2d(3, 4, 1)
        self.kernel = nn.Parameter(torch.ones(4, 4, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        features = self.twice(self.norm(self.first(images)))
        features = F.conv2d(features, self.kernel)
        logits: Tensor = self.head(self.twice(features).mean((2, 3)) * self.scale)
        return logits


def test_the_order_is_that_of_running_whatever_was_registered_first() -> None:
    parts = network_parts(Shuffled(), 8, 8)
    # What the root holds itself is one part, at its first use.
    assert parts.names("block") == ("first", "twice", "scale+kernel", "head")
    assert parts.names("layer") == ("first", "twice", "scale+kernel", "head")
    assert parts.blocks[0].normalised == ("norm",)
    assert not any("unused" in name for part in parts.layers for name in part.parameters)


class Unit(nn.Sequential):
    """One convolution with its norm: too small to be a block of a stack."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU())


class Double(nn.Module):
    """Two units: a block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.two = Unit(channels, channels), Unit(channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = features + self.two(self.one(features))
        return output


class Trunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = Unit(3, 4), Double(4), Double(4)

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.second(self.first(self.stem(images)))
        return output


def test_a_wrapped_network_is_cut_like_the_network() -> None:
    wrapped = nn.Sequential(Trunk(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    assert network_parts(wrapped, 8, 8).names("block") == ("0.stem", "0.first", "0.second", "3")


def test_a_tensor_that_two_layers_share_is_in_one_part() -> None:
    one, two = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    two.weight = one.weight
    parts = network_parts(nn.Sequential(one, two, nn.Flatten(), nn.Linear(192, 2)), 8, 8)
    assert [part.parameters for part in parts.blocks] == [
        ("0.weight", "0.bias"),
        ("1.bias",),
        ("3.weight", "3.bias"),
    ]
    assert sum("0.weight" in part.parameters for part in parts.layers) == 1


def test_looking_leaves_no_hook_and_the_modes_and_statistics_as_they_were() -> None:
    network = build_network("cifar_resnet8", 10)
    network.layer1.eval()
    modes = [module.training for module in network.modules()]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network_parts(network, 32, 32)
    with pytest.raises(FatalError, match="cannot take images of 1x1"):
        network_parts(build_network("mnist_cnn2", 10), 1, 1)
    assert [module.training for module in network.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


class Deaf(nn.Module):
    """Has parameters and uses none."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))[:, :2]


def test_a_network_without_a_parameter_in_use_is_refused() -> None:
    with pytest.raises(FatalError, match="uses none of its parameters"):
        network_parts(Deaf(), 8, 8)

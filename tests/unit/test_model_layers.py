"""The layer that holds the last feature map, net by net."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import FatalError
from pipeline.models import build_network, last_spatial_layer


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("mnist_cnn2", "features.4"),
        ("cifar_cnn4", "features.13"),
        ("cifar_resnet8", "layer3"),
        ("cifar_vgg16", "features.42"),
    ],
)
@pytest.mark.parametrize("size", [28, 32])
def test_own_nets_end_in_their_last_activation(name: str, layer: str, size: int) -> None:
    assert last_spatial_layer(build_network(name, 10), size, size) == layer


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("alexnet", "features.11"),
        ("densenet121", "features.norm5"),
        ("efficientnet_b0", "features.8"),
        ("googlenet", "inception5b"),
        ("inception_v3", "Mixed_7c"),
        ("mobilenet_v2", "features.18"),
        ("resnet18", "layer4"),
        ("shufflenet_v2_x0_5", "conv5"),
        ("squeezenet1_0", "features.12"),
        ("swin_t", "permute"),
        ("timm:convnext_atto", "stages"),
    ],
)
def test_published_nets_end_before_their_head(name: str, layer: str) -> None:
    assert last_spatial_layer(build_network(name, 1000), 128, 128) == layer


def test_as_many_classes_as_channels_do_not_hide_the_last_block() -> None:
    assert last_spatial_layer(build_network("resnet18", 512), 64, 64) == "layer4"
    assert last_spatial_layer(build_network("squeezenet1_1", 512), 64, 64) == "features.12"


def test_a_map_of_one_pixel_is_passed_over() -> None:
    assert last_spatial_layer(build_network("resnet18", 10), 32, 32) == "layer3"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_b_32", "has no spatial layer: after its last map it works on tokens"),
        ("timm:swin_tiny_patch4_window7_224", "no spatial layer with channels first"),
    ],
)
def test_transformers_have_no_spatial_layer(name: str, message: str) -> None:
    with pytest.raises(FatalError, match=message):
        last_spatial_layer(build_network(name, 1000), 224, 224)


class Reusing(nn.Module):
    """Two convolutions that share one ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
        self.relu, self.linear = nn.ReLU(), nn.Linear(5, 2)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.relu(self.conv2(self.relu(self.conv1(images))))
        return self.linear(features.mean((2, 3)))  # type: ignore[no-any-return]


def test_a_module_that_runs_twice_is_passed_over() -> None:
    assert last_spatial_layer(Reusing(), 8, 8) == "conv2"


def test_a_net_without_maps_is_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    with pytest.raises(FatalError, match="no map larger than one pixel"):
        last_spatial_layer(network, 8, 8)


def test_double_precision_is_followed() -> None:
    assert last_spatial_layer(build_network("cifar_resnet8", 10).double(), 32, 32) == "layer3"


@pytest.mark.parametrize("size", [32, 1])
def test_looking_leaves_no_hook_and_the_modes_as_they_were(size: int) -> None:
    network = build_network("mnist_cnn2", 10)
    network.features.eval()
    modes = [module.training for module in network.modules()]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    if size == 1:
        with pytest.raises(FatalError, match="cannot take images of 1x1"):
            last_spatial_layer(network, size, size)
    else:
        last_spatial_layer(network, size, size)
    assert not any(module._forward_hooks for module in network.modules())
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())

"""Residual networks for small images, with parameter-free shortcuts."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut without parameters (option A).

    Where the block changes resolution, the shortcut takes every second pixel and puts zero channels on both
    sides.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.stride = stride
        self.padding = (outputs - inputs) // 2

    def forward(self, features: Tensor) -> Tensor:
        """(N, outputs, H / stride, W / stride) of (N, inputs, H, W)."""
        shortcut = features
        if self.stride != 1:
            shortcut = F.pad(features[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        inner = self.relu1(self.bn1(self.conv1(features)))
        output: Tensor = self.relu2(self.bn2(self.conv2(inner)) + shortcut)
        return output


class CifarResnet(nn.Module):
    """Three stages of residual blocks, a global average and one linear layer; depth is 6 n + 2.

    Source: He et al. 2016, Sec. 4.2, shortcut option A; parameter names as in
        akamaster/pytorch_resnet_cifar10, so that its weights load. Depth 8 (three blocks) is the network of
        Khakzar et al. 2019 (PruneGrad).
    """

    def __init__(self, depth: int, classes: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.relu = nn.ReLU()
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], blocks, stride=1)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], blocks, stride=2)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], blocks, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(WIDTHS[2], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of normalised images (N, 3, H, W)."""
        features = self.relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))
        logits: Tensor = self.linear(self.flatten(self.pool(features)))
        return logits


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


def cifar_resnet8(classes: int) -> nn.Module:
    """Residual network with three blocks."""
    return CifarResnet(8, classes)


def cifar_resnet20(classes: int) -> nn.Module:
    """Residual network with nine blocks."""
    return CifarResnet(20, classes)


def cifar_resnet32(classes: int) -> nn.Module:
    """Residual network with fifteen blocks."""
    return CifarResnet(32, classes)


def cifar_resnet44(classes: int) -> nn.Module:
    """Residual network with twenty-one blocks."""
    return CifarResnet(44, classes)


def cifar_resnet56(classes: int) -> nn.Module:
    """Residual network with twenty-seven blocks."""
    return CifarResnet(56, classes)

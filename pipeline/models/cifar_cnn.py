"""A four-layer network for small natural images."""

from __future__ import annotations

from torch import Tensor, nn


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


class CifarCnn(nn.Module):
    """Four 3 x 3 convolutions with batch norm, three poolings, a global average and one linear layer.

    Source: Yang et al. 2020 (learning propagation rules), Sec. "MoRF/LeRF result analysis", names "a custom
        CNN model with four convolutional layers" and says no more: widths, batch norm and the head are ours.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(3, 32),
            nn.MaxPool2d(2),
            *_block(32, 64),
            nn.MaxPool2d(2),
            *_block(64, 128),
            *_block(128, 128),
            nn.MaxPool2d(2),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(128, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of normalised images (N, 3, H, W), H and W at least 8."""
        logits: Tensor = self.classifier(self.pool(self.features(images)))
        return logits


def cifar_cnn4(classes: int) -> nn.Module:
    """The four-convolution network for `classes` classes."""
    return CifarCnn(classes)

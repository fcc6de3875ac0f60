"""VGG-16 for small images."""

from __future__ import annotations

from torch import Tensor, nn

WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class CifarVgg(nn.Module):
    """Thirteen 3 x 3 convolutions with batch norm in five stages, a global average and one linear layer.

    Source: Simonyan & Zisserman 2015, configuration D, with batch norm and the single linear layer usual on
        CIFAR. Pooling rounds up, which changes nothing at 32 x 32 and lets 28 x 28 through.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stage in WIDTHS:
            for width in stage:
                layers += [
                    nn.Conv2d(channels, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                ]
                channels = width
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(channels, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of normalised images (N, 3, H, W)."""
        logits: Tensor = self.classifier(self.pool(self.features(images)))
        return logits


def cifar_vgg16(classes: int) -> nn.Module:
    """VGG-16 with batch norm for `classes` classes."""
    return CifarVgg(classes)

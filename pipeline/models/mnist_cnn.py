"""A two-layer network for handwritten digits."""

from __future__ import annotations

from torch import Tensor, nn


class MnistCnn(nn.Module):
    """Two convolutions, two poolings, one hidden layer.

    Source: Yang et al. 2020 (learning propagation rules), Sec. "MoRF/LeRF result analysis", names "a
        customized CNN model with two convolutional layers" and says no more: kernel size, widths and the
        hidden layer are ours, and the input has three channels, as everywhere here.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        # On 28 x 28 this is the identity; larger inputs are pooled to the same grid.
        self.pool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64 * 7 * 7, 128),
            nn.ReLU(),
            nn.Linear(128, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of normalised images (N, 3, H, W), H and W at least 28."""
        logits: Tensor = self.classifier(self.pool(self.features(images)))
        return logits


def mnist_cnn2(classes: int) -> nn.Module:
    """The digit network for `classes` classes."""
    return MnistCnn(classes)

"""MNIST in its published files."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from pipeline.data.downloaded import Arrays, DownloadedConfig
from pipeline.data.source import Split

if TYPE_CHECKING:
    from torchvision.datasets import VisionDataset


class Mnist(DownloadedConfig):
    """10,000 test and 60,000 training images of digits, 28 x 28 grey, shown as RGB.

    Source: LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition.
    """

    wanted: ClassVar[str] = (
        "MNIST/raw/ with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
        "t10k-labels-idx1-ubyte"
    )
    source: Literal["mnist"] = "mnist"

    @classmethod
    def open(cls, root: str, split: Split, *, download: bool) -> VisionDataset:
        """torchvision's MNIST."""
        # torchvision takes four seconds to import, and most sources do without.
        from torchvision.datasets import MNIST  # noqa: PLC0415

        return MNIST(root, train=split == "train", download=download)

    @classmethod
    def arrays(cls, data: VisionDataset) -> Arrays:
        """Images and labels as the files have them; a class is named by its digit."""
        grey = data.data.numpy()
        planes = np.broadcast_to(grey[:, None], (len(grey), 3, *grey.shape[1:]))
        return Arrays(planes, data.targets.numpy().astype(np.int64), tuple(str(digit) for digit in range(10)))

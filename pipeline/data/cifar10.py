"""CIFAR-10 in its published files."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from pipeline.data.downloaded import Arrays, DownloadedConfig
from pipeline.data.source import Split

if TYPE_CHECKING:
    from torchvision.datasets import VisionDataset


class Cifar10(DownloadedConfig):
    """10,000 test and 50,000 training images, 32 x 32 RGB, 10 classes.

    Source: Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.
    """

    wanted: ClassVar[str] = "cifar-10-python.tar.gz, unpacked as the folder cifar-10-batches-py,"
    source: Literal["cifar10"] = "cifar10"

    @classmethod
    def open(cls, root: str, split: Split, *, download: bool) -> VisionDataset:
        """torchvision's CIFAR10, which checks every file's MD5 before it reads one."""
        # torchvision takes four seconds to import, and most sources do without.
        from torchvision.datasets import CIFAR10  # noqa: PLC0415

        return CIFAR10(root, train=split == "train", download=download)

    @classmethod
    def arrays(cls, data: VisionDataset) -> Arrays:
        """Images, labels and class names as the files have them."""
        return Arrays(data.data.transpose(0, 3, 1, 2), np.array(data.targets, dtype=np.int64), tuple(data.classes))

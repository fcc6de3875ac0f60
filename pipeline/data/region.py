"""Where things are in images: masks that are resized and cropped exactly as the images are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from PIL import Image

from pipeline.data.decode import Geometry, Mask, Pixels, Size, fit

# Part of the fingerprint of what is measured against regions: raised when the same data would give other regions.
REVISION = 1

StoredMask = Callable[[int, Size], Mask]
"""The mask of row i, (H, W), for an image stored at this (height, width); raises UnusableRegionError."""


class UnusableRegionError(Exception):
    """Where things are in this image cannot be known; the message is the reason, one line."""


def fit_mask(mask: Mask, geometry: Geometry) -> Mask:
    """A mask resized and cropped as its image is; each pixel is that of the nearest stored one.

    Args:
        mask: (H, W), true inside, at the size at which the image is stored.
        geometry: the image's; its interpolation plays no part.

    Raises:
        UnusableImageError: it is smaller than the crop.
    """
    image = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(fit(image, replace(geometry, interpolation="nearest"))) > 0


class RegionBlock:
    """Collects the regions of a block of images while these are decoded: each row is written once, in any thread."""

    def __init__(self, stored: Mapping[str, StoredMask], geometry: Geometry) -> None:
        """Nothing collected yet.

        Args:
            stored: by region, the mask of each row at the image's stored size.
            geometry: the images' resize and crop.
        """
        self._stored = stored
        self._geometry = geometry
        self._fitted: dict[int, dict[str, Mask]] = {}
        self._reasons: dict[int, str] = {}

    def add(self, row: int, stored: Size) -> None:
        """Take the regions of a good image that is stored at this (height, width)."""
        try:
            masks = {name: mask(row, stored) for name, mask in self._stored.items()}
        except UnusableRegionError as error:
            self._reasons[row] = str(error)
            return
        self._fitted[row] = {name: fit_mask(mask, self._geometry) for name, mask in masks.items()}

    def joined(self, pixels: Pixels) -> Pixels:
        """The images with what was collected; an image that failed has no regions either."""
        count, _, height, width = pixels.images.shape
        regions = {name: np.zeros((count, height, width), dtype=np.bool_) for name in self._stored}
        for row, masks in self._fitted.items():
            for name, mask in masks.items():
                if row not in pixels.reasons:
                    regions[name][row] = mask
        reasons = {row: reason for row, reason in sorted(self._reasons.items()) if row not in pixels.reasons}
        return replace(pixels, regions=regions, regionless=reasons)

"""Superpixels: connected regions of similar colour that are shown or hidden as one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.contracts import Segmentation


def superpixels(image: Tensor, segmentation: Segmentation) -> Tensor:
    """The superpixel of every pixel.

    Args:
        image: (3, H, W), uint8 or float in [0, 1]; floats are rounded to 255ths, so that a decoded image has the
            same superpixels before and after it is scaled.
        segmentation: how many, how compact.

    Returns:
        (H, W) int32 on the CPU, numbered from 0 without gaps. It does not depend on anything but the pixels.

    Source: Achanta et al. 2012 (SLIC), scikit-image's implementation; An et al. 2022 use 500.
    """
    # scikit-image takes half a second to import, for the methods that need it alone.
    from skimage.segmentation import slic  # noqa: PLC0415

    if image.is_floating_point():
        image = (image * 255).round().clamp(0, 255).to(torch.uint8)
    pixels = image.permute(1, 2, 0).cpu().numpy()
    labels = slic(
        pixels,
        n_segments=segmentation.count,
        compactness=segmentation.compactness,
        start_label=0,
        channel_axis=-1,
    )
    _, numbered = np.unique(labels, return_inverse=True)
    return torch.from_numpy(numbered.reshape(labels.shape).astype(np.int32))

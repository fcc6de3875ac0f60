"""How a map is shown: scaled for the eye, coloured, over its image. Stored maps are never changed."""

from __future__ import annotations

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SHOWN_AT_LEAST = 128
"""Side in pixels below which a picture is enlarged."""

HEAT_COLOURS = "inferno"
SIGNED_COLOURS = "RdBu_r"

# Weight of the map's colour over the grey image, where the map is lowest and where it is highest.
_FAINTEST, _STRONGEST = 0.25, 0.9
# The grey image spans this much of black to white, so that neither end hides a colour.
_DARKEST, _BRIGHTEST = 0.12, 0.92
# ITU-R BT.601, as Pillow converts to grey.
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def display_scale(attribution: NDArray[np.float32], low: float = 80, high: float = 99) -> NDArray[np.float32]:
    """Clip a map at two of its percentiles and scale what is between to [0, 1].

    A map whose two percentiles are equal (mostly zeros, say) is scaled from its least to its greatest value;
    a constant map becomes zeros.

    Args:
        attribution: (..., H, W), signed, finite; higher is more relevant.
        low: percentile that becomes 0, and all below it.
        high: percentile that becomes 1, and all above it.

    Returns:
        A new array of the same shape, float32 in [0, 1].

    Raises:
        ValueError: not 0 ≤ low < high ≤ 100.

    Source: AGI, Pan et al. 2021, Sec. 5.1 (percentiles 80 and 99); the mend for equal percentiles is ours.
    """
    if not 0 <= low < high <= 100:
        raise ValueError(f"percentiles {low} and {high}; expected 0 <= low < high <= 100")
    values = np.asarray(attribution, dtype=np.float64)
    bottom, top = (float(value) for value in np.percentile(values, [low, high]))
    if top <= bottom:
        bottom, top = float(values.min()), float(values.max())
    if top <= bottom:
        return np.zeros(values.shape, dtype=np.float32)
    return ((np.clip(values, bottom, top) - bottom) / (top - bottom)).astype(np.float32)


def display_scale_signed(attribution: NDArray[np.float32], high: float = 99) -> NDArray[np.float32]:
    """Scale a signed map to [-1, 1] with zero kept at zero, clipped at a percentile of its magnitude.

    Args:
        attribution: (..., H, W), signed, finite.
        high: percentile of the magnitude that becomes 1.

    Returns:
        A new array of the same shape, float32 in [-1, 1]; zeros for a map of zeros.

    Raises:
        ValueError: not 0 < high ≤ 100.
    """
    if not 0 < high <= 100:
        raise ValueError(f"percentile {high}; expected 0 < high <= 100")
    values = np.asarray(attribution, dtype=np.float64)
    magnitude = np.abs(values)
    limit = float(np.percentile(magnitude, high)) or float(magnitude.max())
    if not limit:
        return np.zeros(values.shape, dtype=np.float32)
    return np.clip(values / limit, -1, 1).astype(np.float32)


def overlay(image: NDArray[np.uint8], attribution: NDArray[np.float32], *, signed: bool = False) -> Image.Image:
    """A map in colour over its image in grey; the more relevant a pixel, the more its colour covers.

    Args:
        image: (3, H, W) uint8, RGB.
        attribution: (H, W) or (1, H, W), signed, finite.
        signed: blue to red around zero, in place of dark to bright from the 80th percentile on.

    Returns:
        A picture of W × H pixels.

    Raises:
        ValueError: the map's size is not the image's.
    """
    values = np.asarray(attribution, dtype=np.float32)
    values = values[0] if values.ndim == 3 else values
    if values.shape != image.shape[1:]:
        raise ValueError(f"a map of {values.shape} (height, width) over an image of {image.shape[1:]}")
    if signed:
        scaled = display_scale_signed(values)
        colours, strength = matplotlib.colormaps[SIGNED_COLOURS]((scaled + 1) / 2), np.abs(scaled)
    else:
        scaled = display_scale(values)
        colours, strength = matplotlib.colormaps[HEAT_COLOURS](scaled), scaled
    grey = np.tensordot(_LUMINANCE, image.astype(np.float32) / 255, axes=1)
    grey = _DARKEST + (_BRIGHTEST - _DARKEST) * grey
    weight = (_FAINTEST + (_STRONGEST - _FAINTEST) * strength)[..., None]
    blended = weight * colours[..., :3] + (1 - weight) * grey[..., None]
    return Image.fromarray(np.rint(blended * 255).astype(np.uint8))


def as_picture(image: NDArray[np.uint8]) -> Image.Image:
    """(3, H, W) uint8 as a picture."""
    return Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))


def enlarged(picture: Image.Image, at_least: int = SHOWN_AT_LEAST) -> Image.Image:
    """The picture with each pixel repeated until its short side has `at_least` pixels, if it has fewer.

    Pixels are repeated and not blended, in images and maps alike: at 32 × 32 a pixel is what a method ranks.
    """
    factor = -(-at_least // min(picture.size))
    if factor <= 1:
        return picture
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def colour_stops(signed: bool = False, count: int = 9) -> list[str]:
    """Colours of the scale from lowest to highest, `#rrggbb`, for a colour bar."""
    scale = matplotlib.colormaps[SIGNED_COLOURS if signed else HEAT_COLOURS]
    return [matplotlib.colors.to_hex(scale(position)) for position in np.linspace(0, 1, count)]

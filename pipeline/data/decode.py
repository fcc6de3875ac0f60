"""From encoded bytes or raw arrays to RGB images of one size, with a reason for each that cannot be used."""

from __future__ import annotations

import errno
import io
import struct
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.errors import RetryableError, one_line

Interpolation = Literal["bilinear", "bicubic", "nearest"]
Array = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Size = tuple[int, int]
Item = TypeVar("Item")

# Part of every fingerprint: raised when the same bytes would come out as other numbers.
REVISION = 1

# Pillow would also start Ghostscript for EPS and open formats that no image data set uses.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

# Below this the interpreter's share of a decode outweighs the library's, and threads wait for each other
# (32 x 32 JPEG: 13,700 images/s in one thread, 9,700 in two).
SMALL_IMAGE_BYTES = 4096

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}

# What Pillow's plugins raise on bytes that are no proper image.
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    AttributeError,
    NotImplementedError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

# Seconds between attempts at an image that there is no memory for: others may hold it for a moment. Of some damaged
# images Pillow says so as well, so that there is an end to it.
_MEMORY_PAUSES = (0.2, 0.5, 1.0)

# What is wrong with a machine or a mount and not with the file.
_PASSING = (
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.EAGAIN,
    errno.ENOTCONN,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
)


class UnusableImageError(Exception):
    """This image cannot be used; the message is the reason, one line."""


def read_error(file: str, error: OSError) -> UnusableImageError | RetryableError:
    """What it means that a file on a disk or a mount cannot be read.

    Args:
        file: the file, for people.
        error: what was raised.

    Returns:
        Retryable where it is the machine or the mount that fails: the image has no part in it.
    """
    text = f"{file} cannot be read: {error.strerror or one_line(error)}"
    return (RetryableError if error.errno in _PASSING else UnusableImageError)(text)


@dataclass(frozen=True, slots=True)
class Geometry:
    """How an image is brought to its size.

    Attributes:
        resize: length of the short side in pixels, the long side follows; None leaves the size.
        crop: side of the centred square that is kept; None keeps all.
        interpolation: Pillow's filter for the resize.
    """

    resize: int | None = None
    crop: int | None = None
    interpolation: Interpolation = "bilinear"


@dataclass(frozen=True, slots=True)
class Pixels:
    """Images that a source has read.

    Attributes:
        images: (n, 3, H, W) uint8, RGB; the content of a row that failed is undefined.
        reasons: for each row that failed, one line.
        regions: where things are, by name, where that was asked for: each (n, H, W), true inside; all false in a row
            that failed or that has no such thing.
        regionless: for each row whose image is good and whose regions cannot be known, why, one line.
    """

    images: Array
    reasons: dict[int, str]
    regions: Mapping[str, Mask] = field(default_factory=dict)
    regionless: Mapping[int, str] = field(default_factory=dict)


def resized_size(height: int, width: int, resize: int) -> Size:
    """Size after the short side became `resize`, as torchvision's Resize rounds it."""
    if height <= width:
        return resize, max(1, int(resize * width / height))
    return max(1, int(resize * height / width)), resize


def crop_corner(height: int, width: int, crop: int) -> Size:
    """Top and left of the centred crop, as torchvision's CenterCrop rounds them.

    Raises:
        UnusableImageError: the image is smaller than the crop.
    """
    if height < crop or width < crop:
        raise UnusableImageError(
            f"{height} x {width} pixels (height x width) are too small for the crop of {crop}; "
            f"set resize to at least {crop}"
        )
    return round((height - crop) / 2.0), round((width - crop) / 2.0)


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of any mode that Pillow opens.

    Grey is repeated; a palette is looked up; CMYK is converted; 16-bit grey keeps its high byte, as Pillow
    does for 16-bit colour; alpha is dropped and not composited, as torchvision's loader does.

    Raises:
        UnusableImageError: the values have no fixed range (32-bit integers, floats).
    """
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        high = np.asarray(image).astype(np.uint32) >> 8
        return Image.fromarray(high.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UnusableImageError(f"mode {image.mode}: 32-bit values have no fixed range; 8 or 16 bits expected")
    if image.mode == "P" and "transparency" in image.info:
        # Straight to RGB gives the same colours, with a warning for each image.
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def fit(image: Image.Image, geometry: Geometry) -> Image.Image:
    """The image resized and cropped.

    Raises:
        UnusableImageError: it is smaller than the crop.
    """
    if geometry.resize is not None and min(image.size) != geometry.resize:
        height, width = resized_size(image.height, image.width, geometry.resize)
        image = image.resize((width, height), _RESAMPLING[geometry.interpolation])
    if geometry.crop is not None and image.size != (geometry.crop, geometry.crop):
        top, left = crop_corner(image.height, image.width, geometry.crop)
        image = image.crop((left, top, left + geometry.crop, top + geometry.crop))
    return image


def decode(data: bytes, geometry: Geometry) -> Array:
    """One encoded image as pixels. EXIF orientation is not applied, as in torchvision's ImageFolder.

    Args:
        data: a file's content in one of `FORMATS`; of several frames the first counts.
        geometry: the size wanted.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        UnusableImageError: corrupt, truncated, far too large, too small for the crop, or no image at all.
    """
    return opened(data, lambda image: np.asarray(fit(to_rgb(image), geometry)))


def opened(data: bytes, use: Callable[[Image.Image], Item], formats: tuple[str, ...] = FORMATS) -> Item:
    """What `use` makes of an encoded image; whatever Pillow finds wrong with it is a reason.

    Raises:
        UnusableImageError: corrupt, truncated, far too large, or no image in one of the formats.
    """
    if not data:
        raise UnusableImageError("the file is empty")
    for pause in _MEMORY_PAUSES:
        with suppress(MemoryError):
            return _opened(data, use, formats)
        time.sleep(pause)
    try:
        return _opened(data, use, formats)
    except MemoryError as error:
        raise UnusableImageError(f"cannot be decoded: {one_line(error)}") from error


def _opened(data: bytes, use: Callable[[Image.Image], Item], formats: tuple[str, ...]) -> Item:
    """As `opened`, once; a MemoryError where memory is what lacks."""
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            return use(image)
    except UnidentifiedImageError:
        raise UnusableImageError(f"not an image in {', '.join(formats)}") from None
    except _PILLOW_ERRORS as error:
        if "out of memory" in str(error):
            raise MemoryError(one_line(error)) from error
        raise UnusableImageError(f"cannot be decoded: {one_line(error)}") from error


def decode_all(
    fetch: Callable[[int], bytes],
    count: int,
    geometry: Geometry,
    size: Size | None,
    threads: int,
    decoded: Callable[[int, Size], None] | None = None,
) -> Pixels:
    """Decode images into one block; Pillow frees the interpreter while it decodes, so threads help.

    Args:
        fetch: encoded bytes of row i; raises UnusableImageError where there are none. Called in the threads.
        count: number of rows n.
        geometry: resize and crop.
        size: (height, width) that every image must have; None: that of the first image that decodes.
        threads: how many decode at once.
        decoded: told of each row that is good, with the (height, width) at which it is stored. Called in the threads.

    Returns:
        (n, 3, H, W) uint8 and the reasons of the rows that failed.
    """
    reasons: dict[int, str] = {}
    start = 0
    while size is None and start < count:
        try:
            height, width, _ = decode(fetch(start), geometry).shape
            size = (height, width)
        except UnusableImageError as error:
            reasons[start] = str(error)
            start += 1
    height, width = size or (0, 0)
    images = np.zeros((count, 3, height, width), dtype=np.uint8)

    def fitted(image: Image.Image) -> tuple[Array, Size]:
        return np.asarray(fit(to_rgb(image), geometry)), (image.height, image.width)

    def fill(rows: range) -> None:
        for row in rows:
            try:
                pixels, stored = opened(fetch(row), fitted)
                check_size(pixels.shape[0], pixels.shape[1], (height, width))
            except UnusableImageError as error:
                reasons[row] = str(error)
            else:
                images[row] = pixels.transpose(2, 0, 1)
                if decoded is not None:
                    decoded(row, stored)

    # Four pieces a thread even out images of unequal cost; a future for each image costs more than it gives.
    step = max(1, -(-(count - start) // (4 * threads)))
    run(fill, [range(first, min(first + step, count)) for first in range(start, count, step)], threads)
    return Pixels(images, reasons)


def check_size(height: int, width: int, expected: Size) -> None:
    """Raise UnusableImageError where an image is not as large as the data set's others."""
    if (height, width) != expected:
        raise UnusableImageError(
            f"{height} x {width} pixels (height x width), the data set has {expected[0]} x {expected[1]}: "
            f"set crop, and resize where need be"
        )


def run(task: Callable[[Item], None], items: Sequence[Item], threads: int) -> None:
    """Do a task for each item, in a pool that ends with the call; the first error is raised."""
    if threads <= 1 or len(items) <= 1:
        for item in items:
            task(item)
        return
    with ThreadPoolExecutor(min(threads, len(items)), thread_name_prefix="decode") as pool:
        for _ in pool.map(task, items):
            pass


def fit_arrays(planes: Array, geometry: Geometry, size: Size | None) -> Pixels:
    """Bring raw images, which all have one size, to the size wanted.

    Args:
        planes: (n, 3, H, W) uint8, any strides.
        geometry: resize and crop; without a resize nothing loops over images.
        size: (height, width) expected; None: whatever comes out.

    Returns:
        (n, 3, H', W') uint8 in memory of its own.
    """
    count, _, height, width = planes.shape
    try:
        if geometry.resize is not None and min(height, width) != geometry.resize:
            height, width = resized_size(height, width, geometry.resize)
            planes = _resize_arrays(planes, (height, width), geometry)
        if geometry.crop is not None:
            top, left = crop_corner(height, width, geometry.crop)
            height = width = geometry.crop
            planes = planes[:, :, top : top + height, left : left + width]
        check_size(height, width, size or (height, width))
    except UnusableImageError as error:
        return Pixels(np.zeros((count, 3, *(size or (0, 0))), np.uint8), dict.fromkeys(range(count), str(error)))
    return Pixels(np.array(planes, order="C"), {})


def _resize_arrays(planes: Array, size: Size, geometry: Geometry) -> Array:
    resized = np.empty((*planes.shape[:2], *size), dtype=np.uint8)
    for row, image in enumerate(planes):
        picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        resized[row] = np.asarray(fit(picture, Geometry(geometry.resize, None, geometry.interpolation))).transpose(
            2, 0, 1
        )
    return resized

"""Reading where things are out of parquet files: masks, or boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.decode import FORMATS, Mask, Size, UnusableImageError, opened, run
from pipeline.data.parquet_row import ColumnReader, RowGroup, holds_encoded
from pipeline.data.region import StoredMask, UnusableRegionError
from pipeline.errors import FatalError

# JPEG is left out: its zeros come back as ones and twos.
MASK_FORMATS = tuple(name for name in FORMATS if name != "JPEG")

_ALPHA = ("RGBA", "LA", "PA")
_PLAIN = ("1", "L", "P", "I", "F", "RGB")
_CORNERS = 4


@dataclass(frozen=True, slots=True)
class RegionColumn:
    """A column that says where the object is: masks, or boxes."""

    name: str
    boxes: bool = False


def check_mask_column(field: pa.Field, path: str) -> None:
    """Say whether a column can hold masks.

    Raises:
        FatalError: it cannot.
    """
    kind = field.type
    if holds_encoded(kind):
        return
    if isinstance(kind, pa.FixedShapeTensorType):
        shape = tuple(kind.shape)
        if kind.value_type in (pa.bool_(), pa.uint8()) and (len(shape) == 2 or (len(shape) == 3 and 1 in shape[::2])):
            return
    elif _is_list(kind) and _is_list(kind.value_type) and kind.value_type.value_type in (pa.bool_(), pa.uint8()):
        return
    raise FatalError(
        f"dataset.mask_column: '{field.name}' in '{path}' is {kind}; expected binary, a struct with binary `bytes`, "
        f"or a fixed-shape tensor (H, W) or list of rows of bool or uint8"
    )


def check_boxes_column(field: pa.Field, path: str) -> None:
    """Say whether a column can hold lists of boxes.

    Raises:
        FatalError: it cannot.
    """
    kind = field.type
    if _is_list(kind) and _is_list(kind.value_type):
        number = kind.value_type.value_type
        if pa.types.is_integer(number) or pa.types.is_floating(number):
            return
    raise FatalError(
        f"dataset.boxes_column: '{field.name}' in '{path}' is {kind}; expected a list of boxes, each a list of the "
        f"four numbers x0, y0, x1, y1"
    )


def read_regions(
    filesystem: pafs.FileSystem, groups: Sequence[RowGroup], column: RegionColumn, threads: int
) -> StoredMask:
    """Read the masks or boxes of some rows.

    Args:
        filesystem: where the files lie.
        groups: the rows wanted, with the slot of each.
        column: where the masks or boxes stand.
        threads: how many row groups are read at once.

    Returns:
        The mask of a slot, given the size at which its image is stored; it is decoded when asked for.

    Raises:
        RetryableError: an object store did not answer.
    """
    reader = ColumnReader(filesystem, column.name)
    found: dict[int, object] = {}
    reasons: dict[int, str] = {}

    def read(group: RowGroup) -> None:
        try:
            for slots, values in reader.batches(group):
                rows = values.to_pylist() if column.boxes else _masks(values)
                found.update(zip(slots.tolist(), rows, strict=True))
        except UnusableImageError as error:
            reasons.update(dict.fromkeys(group.slots.tolist(), str(error)))

    run(read, groups, threads)
    what, draw = ("the boxes are", box_mask) if column.boxes else ("the mask is", _stored_mask)

    def mask(slot: int, stored: Size) -> Mask:
        value = found.get(slot)
        if value is None:
            raise UnusableRegionError(reasons.get(slot, f"{what} null"))
        return draw(value, stored)

    return mask


def box_mask(boxes: object, stored: Size) -> Mask:
    """The pixels whose centre lies in any of some boxes; what is outside the image is cut off.

    Args:
        boxes: a list of [x0, y0, x1, y1] in pixels of the stored image, half-open: [0, 0, 1, 1] is its first pixel.
        stored: (height, width) of the stored image.

    Raises:
        UnusableRegionError: a box has other than four numbers, one that is not finite, or ends before it begins.
    """
    height, width = stored
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    mask = np.zeros(stored, dtype=np.bool_)
    for box in boxes if isinstance(boxes, list) else []:
        if box is None or len(box) != _CORNERS or not all(n is not None and np.isfinite(n) for n in box):
            raise UnusableRegionError(f"a box is {box}; four numbers x0, y0, x1, y1 were expected")
        left, top, right, bottom = box
        if right < left or bottom < top:
            raise UnusableRegionError(f"the box {box} ends before it begins; x0, y0, x1, y1 were expected")
        mask |= ((top <= rows) & (rows < bottom))[:, None] & ((left <= columns) & (columns < right))
    return mask


def mask_of_image(data: bytes) -> Mask:
    """The non-zero pixels of an encoded image, (H, W); of a palette its indices count, alpha does not.

    Raises:
        UnusableImageError: it cannot be decoded, or is in a format or mode that masks do not have.
    """
    return opened(data, _nonzero, MASK_FORMATS)


def _stored_mask(value: object, stored: Size) -> Mask:
    if isinstance(value, bytes):
        try:
            mask = mask_of_image(value)
        except UnusableImageError as error:
            raise UnusableRegionError(f"the mask cannot be used: {error}") from error
    elif isinstance(value, pa.Array):
        mask = _rectangle(value)
    else:
        mask = np.asarray(value)
    if mask.shape != stored:
        height, width = mask.shape
        raise UnusableRegionError(
            f"the mask has {height} x {width} pixels (height x width), its image {stored[0]} x {stored[1]}"
        )
    return mask


def _nonzero(image: Image.Image) -> Mask:
    if image.mode not in (*_PLAIN, *_ALPHA) and not image.mode.startswith("I;16"):
        raise UnusableImageError(f"mode {image.mode} is none that a mask has")
    values: Mask = np.asarray(image).astype(np.bool_)
    if values.ndim == 2:
        return values
    # Alpha says how opaque a pixel is, not whether it is inside.
    coloured: Mask = np.logical_or.reduce(values[..., :-1] if image.mode in _ALPHA else values, axis=2)
    return coloured


def _masks(values: pa.Array) -> list[object]:
    """One mask a row, not decoded yet: bytes, (H, W) bool, an Arrow list of rows, or None where it is null."""
    if isinstance(values, pa.FixedShapeTensorArray):
        return _tensor_masks(values)
    if _is_list(values.type):
        return [scalar.values if scalar.is_valid else None for scalar in values]
    encoded: list[object] = values.to_pylist()
    return encoded


def _tensor_masks(values: pa.FixedShapeTensorArray) -> list[object]:
    valid: NDArray[np.bool_] = values.is_valid().to_numpy(zero_copy_only=False)
    masks: list[object] = [None] * len(values)
    kept = values.filter(pa.array(valid))
    if len(kept):
        kind = values.type
        # Arrow has bool tensors, but no NumPy view of them.
        whole = pa.fixed_shape_tensor(pa.uint8(), kind.shape, permutation=kind.permutation)
        storage = kept.storage.cast(whole.storage_type)
        planes = pa.ExtensionArray.from_storage(whole, storage).to_numpy_ndarray() != 0
        if planes.ndim == 4:
            planes = planes[:, 0] if planes.shape[1] == 1 else planes[..., 0]
        for place, plane in zip(np.flatnonzero(valid), planes, strict=True):
            masks[place] = plane
    return masks


def _rectangle(rows: pa.Array) -> Mask:
    """(H, W) bool from a list of rows."""
    widths = set(pc.list_value_length(rows).to_pylist())
    flat = rows.flatten()
    if len(widths) != 1 or None in widths or flat.null_count:
        raise UnusableRegionError("the mask's rows differ in length, hold nulls, or are none")
    return np.asarray(flat.to_numpy(zero_copy_only=False).reshape(len(rows), -1) != 0)


def _is_list(kind: pa.DataType) -> bool:
    return any(check(kind) for check in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))

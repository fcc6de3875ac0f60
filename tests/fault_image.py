"""Digits in a parquet file, some of them corrupt or marked."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from fault_network import MARK
from PIL import Image

from pipeline.data import Dataset, build_index
from pipeline.data.digits import Digits


def write_digits(path: Path, count: int, corrupt: Collection[int] = (), marked: Collection[int] = ()) -> Path:
    """The first digits as PNG, in the Hugging Face convention.

    Args:
        path: the file to write.
        count: how many.
        corrupt: positions whose image is cut off.
        marked: positions whose first pixel has the colour that `fault_network` knows.
    """
    shard = Dataset(Digits(), build_index(Digits()), 0).load(range(count))
    images = []
    for position, pixels in enumerate(shard.images):
        image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        if position in marked:
            image.putpixel((0, 0), MARK)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        content = buffer.getvalue()
        images.append({"bytes": content[:40] if position in corrupt else content, "path": None})
    pq.write_table(pa.table({"id": list(shard.ids), "image": images, "label": shard.labels.numpy()}), path)
    return path

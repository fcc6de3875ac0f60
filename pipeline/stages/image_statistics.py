"""What the statistics of a split's images say of all of them together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import ShardError
from pipeline.store import Output


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """Mean and standard deviation of each channel over a split, in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def channel_statistics(output: Output, variant: str, total: int) -> ChannelStatistics:
    """The statistics of the committed rows of positions 0 to total − 1.

    Raises:
        ShardError: there are none, since no image of the split can be decoded.
    """
    table = output.read(variant, 0, total, ["pixels", "sums", "squares"])
    if table is None or not table.num_rows:
        raise ShardError(f"{variant}: no image of the training split can be decoded")
    pixels = pc.sum(table["pixels"]).as_py()
    sums, squares = (
        table[name].combine_chunks().flatten().to_numpy().reshape(-1, 3).sum(0).tolist() for name in ("sums", "squares")
    )
    # In whole numbers, since it is a small difference of two large ones.
    variance = [(square * pixels - one * one) / pixels**2 for one, square in zip(sums, squares, strict=True)]
    return ChannelStatistics(
        tuple(one / pixels / 255 for one in sums),
        # A channel of one colour has no deviation, and dividing by it would give nothing but NaN.
        tuple(max(value**0.5, 1.0) / 255 for value in variance),
    )


def labelled_positions(output: Output, variant: str, total: int) -> NDArray[np.int64]:
    """Positions of the samples that can be decoded and have a label: those that every network is trained or tested on.

    Args:
        output: where the statistics are committed.
        variant: that of the split's statistics.
        total: positions of the split.
    """
    table = output.read(variant, 0, total, ["position", "label"])
    if table is None:
        return np.empty(0, dtype=np.int64)
    known: NDArray[np.int64] = table["position"].to_numpy()[table["label"].is_valid().to_numpy()]
    return known

"""Rows of a few samples out of committed parts, without reading the parts whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.store import Output


def committed_positions(output: Output, variant: str, total: int) -> NDArray[np.int64]:
    """Positions below `total` that have a row in a variant, ascending; (n,) int64."""
    dataset = output.dataset(variant)
    if dataset is None:
        return np.empty(0, np.int64)
    with output.reading_rows(variant):
        positions = np.unique(dataset.to_table(columns=["position"])["position"].to_numpy())
    return positions[positions < total]


def rows_at(output: Output, variant: str, positions: Iterable[int], columns: Sequence[str] | None = None) -> pa.Table:
    """Rows of the samples at some positions, in the order of positions.

    Of each part only the column `position` and the row groups that hold a wanted sample are read: 24 maps
    of a data set cost megabytes, whatever its size.

    Args:
        output: where the variant is.
        variant: its folder.
        positions: numbers in the data set; those without a row are left out.
        columns: those wanted; default: all.

    Returns:
        The rows; a table without columns where there are none.

    Raises:
        FatalError, RetryableError, ShardError: as `CommitFolder.reading_rows`.
    """
    wanted = np.unique(np.fromiter(positions, np.int64))
    parts = output.parts(variant)
    dataset = output.dataset(variant, parts)
    tables = []
    fragments = dataset.get_fragments() if dataset is not None else ()
    with output.reading_rows(variant):
        for part, fragment in zip(parts, fragments, strict=True):
            if not ((part.start <= wanted) & (wanted < part.stop)).any():
                continue
            for group in fragment.split_by_row_group():
                there = group.to_table(columns=["position"])["position"].to_numpy()
                if np.isin(there, wanted).any():
                    rows = group.to_table(columns=None if columns is None else list(columns))
                    tables.append(rows.filter(pa.array(np.isin(there, wanted))))
    if not tables:
        return pa.table({})
    whole = pa.concat_tables([table.replace_schema_metadata(None) for table in tables]).unify_dictionaries()
    return whole.take(pc.sort_indices(whole["position"])) if "position" in whole.column_names else whole


def maps_at(output: Output, variant: str, positions: Iterable[int]) -> dict[int, NDArray[np.float32]]:
    """Maps of the samples at some positions, each (H, W) float32; those without a map are left out."""
    table = rows_at(output, variant, positions, ["position", "map"])
    if not table.num_rows:
        return {}
    maps = table["map"].combine_chunks().to_numpy_ndarray()
    return {position: maps[row, 0] for row, position in enumerate(table["position"].to_pylist())}

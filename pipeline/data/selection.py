"""Which samples of a source a job is about."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.data.index import IndexFacts
from pipeline.data.source import SourceConfig
from pipeline.errors import FatalError
from pipeline.noise import Noise
from pipeline.suggestion import did_you_mean


def selected_rows(config: SourceConfig, index: pa.Table, facts: IndexFacts, seed: int) -> NDArray[np.int64]:
    """Rows of the index that the configuration selects, before `limit`.

    Args:
        config: `ids` and `classes` filter, then `sample` draws.
        index: the whole source.
        facts: what the index says about it.
        seed: the job's seed; a larger sample of the same seed contains the smaller.

    Returns:
        (n,) int64, ascending.

    Raises:
        FatalError: an unknown id or class, nothing left, or a sample larger than what is left.
    """
    rows = np.arange(len(index), dtype=np.int64)
    if config.ids is not None:
        rows = _rows_of_ids(config.ids, index["id"])
    labels = wanted_labels(config, facts)
    if labels is not None:
        column = pc.fill_null(index["label"], -1).to_numpy()
        rows = rows[np.isin(column[rows], labels)]
    if not len(rows):
        raise FatalError("dataset: no sample has both one of the given ids and one of the given classes")
    if config.sample is None:
        return rows
    if config.sample > len(rows):
        raise FatalError(f"dataset.sample: {config.sample} samples were asked for, there are {len(rows)}")
    drawn = Noise(seed).generator("dataset", "sample").permutation(len(rows))[: config.sample]
    return np.sort(rows[drawn])


def wanted_labels(config: SourceConfig, facts: IndexFacts) -> list[int] | None:
    """Labels that `classes` keeps, ascending; None where it keeps all.

    A name that several classes bear means all of them.

    Raises:
        FatalError: an unknown label or name.
    """
    if config.classes is None:
        return None
    names = facts.class_names or ()
    labels: set[int] = set()
    for wanted in config.classes:
        found = [wanted] if isinstance(wanted, int) else [at for at, name in enumerate(names) if name == wanted]
        if not found and not names:
            raise FatalError(f"dataset.classes: got {wanted!r}, but this source names no classes; give labels")
        if not found:
            raise FatalError(f"dataset.classes: there is no class {wanted!r}{did_you_mean(str(wanted), names)}")
        if not 0 <= found[0] < facts.classes:
            raise FatalError(f"dataset.classes: there is no label {wanted}, expected 0 to {facts.classes - 1}")
        labels.update(found)
    return sorted(labels)


def _rows_of_ids(ids: tuple[str, ...], column: pa.ChunkedArray) -> NDArray[np.int64]:
    rows = np.flatnonzero(pc.is_in(column, pa.array(ids, pa.string())).to_numpy())
    if len(rows) < len(set(ids)):
        known = set(column.take(pa.array(rows)).to_pylist())
        missing = next(name for name in ids if name not in known)
        # An id given without its folder is the likeliest slip, and cheap to look for among a million.
        ending = column.filter(pc.ends_with(column, f"/{missing}")).slice(0, 1).to_pylist()
        hint = f"; did you mean {ending[0]!r}?" if ending else did_you_mean(missing, _texts(column))
        raise FatalError(f"dataset.ids: there is no sample {missing!r}{hint}")
    return rows.astype(np.int64)


def _texts(column: pa.ChunkedArray) -> list[str]:
    return [str(text) for text in column.slice(0, 20_000).to_pylist()]

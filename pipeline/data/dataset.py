"""A selection of a source as numbered samples, read in shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.contracts import digest
from pipeline.data.decode import REVISION
from pipeline.data.index import index_facts
from pipeline.data.region import REVISION as REGION_REVISION
from pipeline.data.selection import selected_rows, wanted_labels
from pipeline.data.source import SourceConfig


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample that cannot be used.

    Attributes:
        position: its number in the data set.
        id: its name.
        reason: why, one line.
    """

    position: int
    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Shard:
    """Samples in memory, in the order asked for; those that failed are only in `failures`.

    Attributes:
        images: (n, 3, H, W) uint8 in [0, 255], RGB, contiguous.
        labels: (n,) int64; -1 where unknown.
        ids: n names.
        positions: n numbers in the data set.
        failures: the others.
        regions: where things are, by name, where that was asked for: each (n, 1, H, W) bool, true inside; all false
            where there is no such thing.
        regionless: those of the n whose regions cannot be known, with the reason; their regions are all false.
    """

    images: Tensor
    labels: Tensor
    ids: tuple[str, ...]
    positions: tuple[int, ...]
    failures: tuple[Failure, ...]
    regions: Mapping[str, Tensor] = field(default_factory=dict)
    regionless: tuple[Failure, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


class Dataset:
    """The selected samples of a source, numbered from 0 in the source's order. No file is kept open.

    `limit` only shortens: the samples that stay keep their positions, and the fingerprint stays.

    Attributes:
        fingerprint: hash of what the samples are and look like: 16 hexadecimal digits.
        classes: number of classes; 0 where no label is known.
        class_names: one a class, or None.
        height, width: size of every image.
        regions: names of the regions that are known of its images; empty for most sources.
        region_fingerprint: hash of what the samples and their regions are; None without regions.
    """

    fingerprint: str
    regions: tuple[str, ...]
    region_fingerprint: str | None
    classes: int
    class_names: tuple[str, ...] | None
    height: int
    width: int

    def __init__(self, config: SourceConfig, index: pa.Table, seed: int) -> None:
        """Select from an index.

        Args:
            config: the source and what is selected; `select` is the stages' business.
            index: what `build_index(config)` gave; it may be memory mapped.
            seed: the job's seed, for `sample`.

        Raises:
            FatalError: the selection names what is not there.
        """
        facts = index_facts(index)
        rows = selected_rows(config, index, facts, seed)
        self._config = config
        self._index = index
        self._rows: NDArray[np.int64] = rows[: config.limit]
        self.classes, self.class_names = facts.classes, facts.class_names
        self.height, self.width = facts.height, facts.width
        self.fingerprint = digest(
            REVISION,
            config.source,
            config.resize,
            config.crop,
            config.interpolation if config.resize else None,
            facts.digest,
            None if config.ids is None else sorted(set(config.ids)),
            wanted_labels(config, facts),
            None if config.sample is None else [config.sample, seed],
        )
        self.regions = config.regions()
        self.region_fingerprint = (
            digest(REGION_REVISION, self.fingerprint, config.region_state(index)) if self.regions else None
        )

    def __len__(self) -> int:
        return len(self._rows)

    def ids(self, start: int, stop: int) -> list[str]:
        """Names of the samples at positions start to stop - 1; positions past the end are left out."""
        names: list[str] = self._index["id"].take(pa.array(self._rows[start:stop])).to_pylist()
        return names

    def labels(self, start: int, stop: int) -> Tensor:
        """Labels of the samples at positions start to stop - 1, int64; -1 where unknown."""
        return _labels(self._index.select(["label"]).take(pa.array(self._rows[start:stop])))

    def load(self, positions: Sequence[int], threads: int = 2, *, regions: bool = False) -> Shard:
        """Read and decode samples.

        Args:
            positions: numbers in [0, len), any order; repeats are read again.
            threads: how many images may be decoded at once.
            regions: whether to read where things are, too.

        Returns:
            The samples in the order asked for. One that is missing, corrupt, truncated or of another size
            is a failure with its reason.

        Raises:
            IndexError: a position is outside the data set.
            FatalError: the source as a whole is gone.
            RetryableError: an object store did not answer.
        """
        chosen = np.asarray(positions, dtype=np.int64).reshape(-1)
        if len(chosen) and not 0 <= chosen.min() <= chosen.max() < len(self):
            raise IndexError(f"positions {chosen.min()} to {chosen.max()} asked for, there are 0 to {len(self) - 1}")
        table = self._index.take(pa.array(self._rows[chosen]))
        names: list[str] = table["id"].to_pylist()
        read = self._config.read_with_regions if regions else self._config.read
        pixels = read(table, (self.height, self.width), threads)
        images, labels = torch.from_numpy(pixels.images), _labels(table)
        kept = [row for row in range(len(names)) if row not in pixels.reasons]
        if pixels.reasons:
            images, labels = images[kept], labels[kept]
        return Shard(
            images=images,
            labels=labels,
            ids=tuple(names[row] for row in kept),
            positions=tuple(int(chosen[row]) for row in kept),
            failures=tuple(
                Failure(int(chosen[row]), names[row], reason) for row, reason in sorted(pixels.reasons.items())
            ),
            regions={name: torch.from_numpy(masks[kept][:, None]) for name, masks in pixels.regions.items()},
            regionless=tuple(
                Failure(int(chosen[row]), names[row], reason) for row, reason in sorted(pixels.regionless.items())
            ),
        )


def _labels(table: pa.Table) -> Tensor:
    return torch.from_numpy(np.array(pc.fill_null(table["label"], -1).to_numpy(), dtype=np.int64))

"""The images of a job's splits, as workers see them."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping, Set

from pipeline.data import Dataset
from pipeline.errors import ShardError
from pipeline.stages.image_cache import ImageCache
from pipeline.stages.unreadable import unreadable_positions
from pipeline.stages.variant import Job, Split
from pipeline.store import Output


class SplitImages:
    """Decoded images by split; each data set is opened when it is asked for. Safe to use from several threads."""

    def __init__(self, output: Output, job: Job) -> None:
        self._output = output
        self._job = job
        self._opening = threading.RLock()
        self._datasets: dict[Split, Dataset] = {}
        self._caches: dict[Split, ImageCache] = {}
        self._unreadable: dict[Split, set[int]] = defaultdict(set)
        self._looked_up: set[Split] = set()

    def dataset(self, split: Split) -> Dataset:
        """The samples of a split.

        Raises:
            ShardError: the job has no such split.
        """
        with self._opening:
            if split not in self._datasets:
                job = self._job
                config, index = (
                    (job.dataset, job.index) if split == "explained" else (job.retraining, job.retraining_index)
                )
                if config is None or index is None:
                    raise ShardError("the job has no images to train on anew")
                self._datasets[split] = Dataset(config, self._output.open_table(index), job.seed)
            return self._datasets[split]

    def kept(self, split: Split) -> ImageCache:
        """Images of a split, decoded in blocks and kept for the next unit."""
        with self._opening:
            if split not in self._caches:
                options = self._job.options
                self._caches[split] = ImageCache(
                    self.dataset(split), options.cache_bytes, options.decode_threads, unreadable=self._avoided(split)
                )
            return self._caches[split]

    def apart(self, split: Split) -> ImageCache:
        """Images of a split, of which none is decoded but those asked for, and none kept."""
        threads = self._job.options.decode_threads
        return ImageCache(self.dataset(split), 0, threads, block=1, unreadable=self._avoided(split))

    def _avoided(self, split: Split) -> set[int]:
        """What is not to be decoded; what earlier runs found is looked up with the first images."""
        with self._opening:
            if split not in self._looked_up:
                self._looked_up.add(split)
                self._unreadable[split] |= unreadable_positions(self._output, self._job, split)
            return self._unreadable[split]

    def avoid(self, unreadable: Mapping[Split, Set[int]]) -> None:
        """Never decode the images at these positions again: it ends the process."""
        for split, positions in unreadable.items():
            self._unreadable[split] |= positions

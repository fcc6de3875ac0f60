"""What several methods have in common, done once for a sample and kept for the next of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.contracts import Batch, SharedWork, digest
from pipeline.models import Classifier
from pipeline.noise import Noise
from pipeline.stages.variant import Variant

Key = tuple[str, str, int]
Tensors = dict[str, Tensor]


class SharedResults:
    """Results of shared work by sample, up to a number of bytes, the oldest given up first.

    The queue hands a worker the methods of one stretch of samples one after the other, so that a method finds what
    the one before it left. It is used under the worker's computing lock alone.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held: OrderedDict[Key, Tensors] = OrderedDict()
        self._bytes = 0

    def get(self, replica: str, work: SharedWork, model: Classifier, batch: Batch, noise: Noise) -> Tensors:
        """What `work` returns for this batch: kept results, and the rest computed in one call.

        Args:
            replica: names the model's weights and the split (`shared_name`).
            work: the work.
            model, batch, noise: as for the work's call.
        """
        prefix = f"{replica}/{digest(work.revision, work)}"
        keys = [(prefix, name, target) for name, target in zip(batch.ids, batch.targets.tolist(), strict=True)]
        missing = [row for row, key in enumerate(keys) if key not in self._held]
        if len(missing) == len(keys):
            # The usual case, without a detour through single rows.
            found = work(model, batch, noise)
            copied = {name: value.cpu() for name, value in found.items()}
            self._keep(keys, lambda row: {name: value[row] for name, value in copied.items()})
            return found
        if missing:
            rows = torch.tensor(missing, device=batch.targets.device)
            superpixels = None if batch.superpixels is None else batch.superpixels[rows]
            part = Batch(batch.images[rows], batch.targets[rows], tuple(batch.ids[row] for row in missing), superpixels)
            added = {name: value.cpu() for name, value in work(model, part, noise).items()}
            fresh = {keys[row]: {n: v[place] for n, v in added.items()} for place, row in enumerate(missing)}
        else:
            fresh = {}
        results = [fresh.get(key) or self._held[key] for key in keys]
        self._keep(list(fresh), lambda place: list(fresh.values())[place])
        device = batch.images.device
        return {name: torch.stack([one[name] for one in results]).to(device) for name in results[0]}

    def _keep(self, keys: list[Key], result: Callable[[int], Tensors]) -> None:
        for row, key in enumerate(keys):
            # A copy, so that a row that stays does not hold the whole batch.
            self._held[key] = {name: value.clone() for name, value in result(row).items()}
            self._bytes += _size(self._held[key])
        while self._bytes > self._limit and self._held:
            self._bytes -= _size(self._held.popitem(last=False)[1])


def shared_name(variant: Variant) -> str:
    """What results of a variant's model over its split are kept under.

    The split is in it, since two folders or files may give one id to two images (`train/cat/1.png`, `test/cat/1.png`).
    """
    return f"{variant.split}/{variant.weights_variant or variant.model}"


def _size(tensors: Tensors) -> int:
    return sum(value.nbytes for value in tensors.values())

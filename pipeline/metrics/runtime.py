"""What a method's map costs: time, passes and memory."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.contracts import Batch, Context, Cost, Metric, Scores, Setting
from pipeline.metrics.peak_memory import PeakMemory
from pipeline.models.classifier import Classifier
from pipeline.models.pass_counter import counting


class Runtime(Metric):
    """Seconds, forwards, backwards and memory of a map, measured while the method explains a batch again.

    The first image of the batch is explained beforehand and not measured, so that what is loaded or found out on first
    use does not count. Then the whole batch is explained twice, since to watch passes and memory takes time: once
    watched, once with the clock. What it took is divided by its images: each of them gets the same row. With few
    `samples` a batch may hold few images, and then cost more an image. The stored superpixels are used, shared work is
    done anew, and what a calibration takes is not in it.

    - `seconds`: wall-clock time, on CUDA until the device has finished. It belongs to the hardware, the batch and the
      number of images a forward, and other work on the machine counts: compare within one run, on an idle machine.
    - `forwards`, `backwards`: images through the model, as `pipeline.models.pass_counter.counting` says. What counts is
      whole forwards, and backwards that reach the pixels.
    - `memory_mb`: peak beyond what was held before, in millions of bytes, as `PeakMemory` says. On the CPU it is the
      process's, and memory that was freed before and that the allocator keeps hides later peaks where the C library is
      not glibc. Null where it cannot be known.

    Measured: the same job gives other seconds and memory each time.

    Source: ours; the papers give seconds an image.
    """

    higher_is_better: ClassVar[bool] = False
    measures: ClassVar[tuple[str, ...]] = ("seconds", "forwards", "backwards", "memory_mb")
    explains: ClassVar[bool] = True
    orders: ClassVar[bool] = False
    by_sample: ClassVar[bool] = False
    against_chance: ClassVar[bool] = False
    reading: ClassVar[str] = "what a map takes: seconds, passes through the model and memory, an image"
    name: Literal["runtime"] = "runtime"
    samples: int | None = Field(
        16, ge=1, description="images looked at, drawn with the job's seed; each is explained twice. null: all"
    )

    def cost(self, setting: Setting, method: Cost = Cost()) -> Cost:
        """Two maps, and a third of the first image of a batch: an upper bound, for an image that is alone in it."""
        del setting
        return method * 3

    def score(self, model: Classifier, batch: Batch, maps: Tensor, context: Context) -> Scores:
        """`seconds`, `forwards`, `backwards` and `memory_mb`, each (B,), the same in every row.

        Raises:
            ValueError: only the maps are known, not the method.
        """
        if context.explain is None:
            raise ValueError("runtime: explains the images again; only the maps are known, not their method")
        context.explain(model, _first(batch))
        device = batch.images.device
        _finish(device)
        memory = PeakMemory(device)
        with counting(model) as count:
            context.explain(model, batch)
            _finish(device)
        taken = memory.taken()
        began = time.perf_counter()
        context.explain(model, batch)
        _finish(device)
        found = {
            "seconds": time.perf_counter() - began,
            "forwards": count.forwards,
            "backwards": count.backwards,
            "memory_mb": taken / 1e6,
        }
        return Scores({name: maps.new_full((len(batch),), value / len(batch)) for name, value in found.items()})


def _first(batch: Batch) -> Batch:
    """The first image alone."""
    superpixels = None if batch.superpixels is None else batch.superpixels[:1]
    images, targets = batch.images[:1], batch.targets[:1]
    return replace(batch, images=images, targets=targets, ids=batch.ids[:1], superpixels=superpixels, regions={})


def _finish(device: torch.device) -> None:
    """Waits until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

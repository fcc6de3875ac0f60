"""Where the images of a training are: held on the device where they fit, else streamed."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from pipeline.models.device_memory import device_memory, is_out_of_memory
from pipeline.models.image_shards import ImageShards
from pipeline.models.processes import ALONE, Processes
from pipeline.models.training_data import HeldImages, Images, StreamedImages

Used = TypeVar("Used")

_IN_PASSING = 3
"""Shards of streamed images that are in memory beside the buffer: one read ahead, one in use, one in its batches."""


class HeldTooMuchError(Exception):
    """Memory did not suffice with the images on the device; streamed, it may. Raised where processes train together."""


@dataclass(frozen=True, slots=True)
class Placement:
    """What is held.

    Attributes:
        training, test: whether these images are.
        why: in words.
    """

    training: bool
    test: bool
    why: str

    @property
    def text(self) -> str:
        """One line: held or streamed, and why."""
        what = "streamed" if not self.training else "held" if self.test else "held, but for the test images"
        return f"{what}: {self.why}"


def placement(
    training: ImageShards,
    test: ImageShards,
    device: str | torch.device = "cpu",
    *,
    share: float = 1.0,
    processes: Processes = ALONE,
) -> Placement:
    """What fits on the device.

    Images may take half of what is free, and of the share of the device: the other half is for the network, its
    activations and what else comes. The training images come first; the buffers of what is streamed count.

    Args:
        training, test: the images.
        device: where to train.
        share: the part of the device that is for this training, in (0, 1].
        processes: the one with the least memory decides for all.
    """
    memory = device_memory(torch.device(device))
    room = processes.least(int(min(memory.free, share * memory.total) / 2))
    holds_training = training.bytes + _IN_PASSING * test.shard_bytes <= room
    buffer = min(training.buffer, len(training)) + _IN_PASSING
    taken = training.bytes if holds_training else buffer * training.shard_bytes
    wanted = f"{training.bytes / 1e6:,.1f} MB of training and {test.bytes / 1e6:,.1f} MB of test images"
    why = f"{wanted}; they may fill half of the memory that {device} has free, {room / 1e6:,.1f} MB"
    return Placement(holds_training, test.bytes + taken <= room, why)


def with_images(
    training: ImageShards,
    test: ImageShards,
    use: Callable[[Images, Images], Used],
    device: str | torch.device = "cpu",
    *,
    share: float = 1.0,
    processes: Processes = ALONE,
    streamed: str = "",
) -> tuple[Used, str]:
    """Train on images that are held where they fit, and once more on streamed ones where memory did not suffice.

    Args:
        training, test, device, share, processes: as for `placement`.
        use: given the training and the test images; called a second time where memory ran out in holding them or in the
            first call.
        streamed: a reason to hold nothing.

    Returns:
        What `use` gave, and one line: whether the images were held or streamed, and why.

    Raises:
        HeldTooMuchError: memory did not suffice for held images, and other processes wait: all have to start anew,
            with the reason as `streamed`.
    """
    place = placement(training, test, device, share=share, processes=processes)
    if streamed:
        place = Placement(False, False, streamed)
    if place.training or place.test:
        try:
            return use(_opened(training, device, place.training), _opened(test, device, place.test)), place.text
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            said = " ".join(str(error).split()) or "no memory left"
        # Outside the handler the error no longer holds the tensors that filled the memory.
        why = f"with images held on {device}, memory did not suffice ({said[:160]})"
        if processes.count > 1:
            raise HeldTooMuchError(why)
        gc.collect()
        if torch.device(device).type == "cuda":
            torch.cuda.empty_cache()
        place = Placement(False, False, why)
    return use(_opened(training, device, False), _opened(test, device, False)), place.text


def _opened(shards: ImageShards, device: str | torch.device, held: bool) -> Images:
    return HeldImages.read(shards, device) if held else StreamedImages(shards, device)

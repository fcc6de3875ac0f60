"""How many images a forward should hold, and in which memory layout: measured once, then remembered."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

import torch

from pipeline.models import Classifier
from pipeline.store import Output

CANDIDATES = (8, 16, 32, 64, 128, 256, 512, 1024)
GAIN = 0.95  # a larger batch has to be at least this much quicker an image
LONGEST_PASS = {"cpu": 0.5, "cuda": 0.25}  # seconds; a unit should see many passes


@dataclass(frozen=True, slots=True)
class Pace:
    """How a model works quickest on a device.

    Attributes:
        rows: images a forward.
        channels_last: the memory layout.
        seconds: of a forward and a backward, an image.
    """

    rows: int
    channels_last: bool
    seconds: float


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device or the host has no memory left."""
    # PyTorch's CPU allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error)


def tune(model: Classifier, height: int, width: int, output: Output) -> None:
    """Set `model.rows` and `model.channels_last` to what is quickest here, for forward and backward.

    The finding is kept under the output by model, image size, device and number of threads, so that every worker
    of a machine works alike and none measures twice.
    """
    device = model.device
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu-{torch.get_num_threads()}"
    folder = f"tuning/{model.digest}-{height}x{width}"
    name = f"{folder}/{machine.replace(' ', '-').replace('/', '-')}.json"
    if output.exists(name):
        found = Pace(**json.loads(output.read_bytes(name)))
    else:
        found = measure(model, height, width)
        output.write_bytes(name, json.dumps(asdict(found)).encode())
    model.rows, model.channels_last = found.rows, found.channels_last


def known_pace(digest: str, height: int, width: int, output: Output) -> Pace | None:
    """What a worker of an earlier run measured for a model on images of this size, the quickest device's."""
    folder = f"tuning/{digest}-{height}x{width}"
    found = [Pace(**json.loads(output.read_bytes(f"{folder}/{name}"))) for name, _ in output.list(folder)]
    return min(found, key=lambda pace: pace.seconds, default=None)


def measure(model: Classifier, height: int, width: int) -> Pace:
    """Find the quickest number of images a forward and memory layout for a forward and a backward."""
    speeds = {layout: _seconds(model, CANDIDATES[0], height, width, layout) for layout in (False, True)}
    layout = speeds[True] < GAIN * speeds[False]
    best_rows, best = CANDIDATES[0], speeds[layout]
    for rows in CANDIDATES[1:]:
        if best * rows > LONGEST_PASS.get(model.device.type, LONGEST_PASS["cuda"]):
            break
        try:
            seconds = _seconds(model, rows, height, width, layout)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
        if seconds > GAIN * best:
            break
        best_rows, best = rows, seconds
    return Pace(best_rows, layout, best)


def _seconds(model: Classifier, rows: int, height: int, width: int, channels_last: bool) -> float:
    """Seconds an image of a forward and a backward, the better of two after one to warm up."""
    before = model.channels_last
    model.channels_last = channels_last
    try:
        taken = []
        for _ in range(3):
            images = torch.zeros(rows, 3, height, width, device=model.device, requires_grad=True)
            began = time.perf_counter()
            with torch.enable_grad():
                torch.autograd.grad(model(images).sum(), images)
            if model.device.type == "cuda":
                torch.cuda.synchronize(model.device)
            taken.append(time.perf_counter() - began)
        return min(taken[1:]) / rows
    finally:
        model.channels_last = before

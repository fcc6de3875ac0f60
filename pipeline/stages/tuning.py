"""How many images a forward should hold, and in which memory layout: measured once, then remembered."""

from __future__ import annotations

import json
import time

import torch

from pipeline.models import Classifier
from pipeline.store import Output

CANDIDATES = (8, 16, 32, 64, 128, 256, 512, 1024)
GAIN = 0.95  # a larger batch has to be at least this much quicker an image
LONGEST_PASS = {"cpu": 0.5, "cuda": 0.25}  # seconds; a unit should see many passes


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
    name = f"tuning/{model.digest}-{height}x{width}-{machine.replace(' ', '-').replace('/', '-')}.json"
    if output.exists(name):
        found = json.loads(output.read_bytes(name))
        model.rows, model.channels_last = found["rows"], found["channels_last"]
        return
    model.rows, model.channels_last = measure(model, height, width)
    output.write_bytes(name, json.dumps({"rows": model.rows, "channels_last": model.channels_last}).encode())


def measure(model: Classifier, height: int, width: int) -> tuple[int, bool]:
    """The quickest (images a forward, channels last) for one forward and backward."""
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
    return best_rows, layout


def _seconds(model: Classifier, rows: int, height: int, width: int, channels_last: bool) -> float:
    """Seconds an image of a forward and a backward, the better of two after one to warm up."""
    before = model.channels_last
    model.channels_last = channels_last
    try:
        taken = []
        for _ in range(3):
            images = torch.zeros(rows, 3, height, width, device=model.device, requires_grad=True)
            began = time.perf_counter()
            torch.autograd.grad(model(images).sum(), images)
            if model.device.type == "cuda":
                torch.cuda.synchronize(model.device)
            taken.append(time.perf_counter() - began)
        return min(taken[1:]) / rows
    finally:
        model.channels_last = before

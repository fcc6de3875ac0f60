"""How many images a forward should hold: measured once, then remembered."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

import torch

from pipeline.contracts import digest
from pipeline.errors import ShardError
from pipeline.models import Classifier
from pipeline.models.device_memory import is_out_of_memory
from pipeline.store import Output

CANDIDATES = (8, 16, 32, 64, 128, 256, 512, 1024)
SMALLER = (4, 2, 1)  # where eight do not fit in memory
GAIN = 0.95  # a larger batch has to be at least this much quicker an image
LONGEST_PASS = {"cpu": 0.5, "cuda": 0.25}  # seconds; a unit should see many passes


@dataclass(frozen=True, slots=True)
class Pace:
    """How a model works quickest on a device.

    Attributes:
        rows: images a forward.
        seconds: of a forward and a backward, an image.
    """

    rows: int
    seconds: float


def tune(model: Classifier, name: str, height: int, width: int, output: Output) -> None:
    """Set `model.rows` to what is quickest here, for forward and backward.

    The finding is kept under the output by architecture, image size, device and number of threads, so that every
    worker of a machine works alike and none measures twice.
    """
    device = model.device
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu-{torch.get_num_threads()}"
    file = f"{_folder(name, model.classes, height, width)}/{machine.replace(' ', '-').replace('/', '-')}.json"
    if output.exists(file):
        found = Pace(**json.loads(output.read_bytes(file)))
    else:
        found = measure(model, height, width)
        output.write_bytes(file, json.dumps(asdict(found)).encode())
    model.rows = found.rows


def known_pace(name: str, classes: int, height: int, width: int, output: Output) -> Pace | None:
    """What workers of earlier runs measured for an architecture on images of this size, the quickest device's."""
    folder = _folder(name, classes, height, width)
    found = [Pace(**json.loads(output.read_bytes(f"{folder}/{file}"))) for file, _ in output.list(folder)]
    return min(found, key=lambda pace: pace.seconds, default=None)


def _folder(name: str, classes: int, height: int, width: int) -> str:
    return f"tuning/{digest(name, classes, height, width)}"


def measure(model: Classifier, height: int, width: int) -> Pace:
    """Find the quickest number of images a forward for a forward and a backward.

    Raises:
        ShardError: not even one image fits in memory.
    """
    best: Pace | None = None
    for rows in (*CANDIDATES, *SMALLER):
        if rows in SMALLER and best is not None:
            break
        try:
            seconds = _seconds(model, rows, height, width)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if best is not None:
                break
            continue
        if best is not None and seconds > GAIN * best.seconds:
            break
        best = Pace(rows, seconds)
        if 2 * rows * seconds > LONGEST_PASS.get(model.device.type, LONGEST_PASS["cuda"]):
            break
    if best is None:
        raise ShardError("one image at a time does not fit in the device's memory")
    return best


def _seconds(model: Classifier, rows: int, height: int, width: int) -> float:
    """Seconds an image of a forward and a backward, the better of two after one to warm up."""
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

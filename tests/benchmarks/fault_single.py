"""One of each fault that is no kill."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

from fault_finding import Found
from fault_image import write_digits
from fault_laboratory import UNDISTURBED, Laboratory, expect
from fault_output import in_flight, markers
from object_store import object_store

from jobs.cli import FAILED, INTERRUPTED, OK, STOPPED

UNITS = 20
"""Units that are committed before a fault."""

CLEAN = "clean"
"""Name of the undisturbed job over files of images."""

GO_ON = "Go on with the same command"
BAD = frozenset({7})


def single_faults(laboratory: Laboratory, stopped: float, share: float = 0.05) -> Sequence[Found]:
    """Do one of each.

    Args:
        laboratory: with the undisturbed job done.
        stopped: seconds that a worker is stopped for.
        share: of an object store's calls that fail.
    """
    laboratory.run_undisturbed(_digits(laboratory, CLEAN))
    faults: list[tuple[Found, Callable[[Laboratory, Found], None]]] = [
        (Found("SIGTERM to the driver"), partial(_signalled, number=signal.SIGTERM)),
        (Found("Ctrl-C"), partial(_signalled, number=signal.SIGINT)),
        (Found(f"SIGSTOP of a worker for {stopped:.0f} s"), partial(_suspended, seconds=stopped)),
        (Found("a full disk, then a larger one"), _full_disk),
        (Found(f"an object store that fails {share:.0%} of its calls"), partial(_failing_store, share=share)),
        (Found("a corrupt image", failing=BAD, exact=False), _corrupt_image),
        (Found("an image that kills its worker each time", failing=BAD, exact=False), _poisoned_image),
        (Found("a worker without the memory for a batch", exact=False), _too_little_memory),
    ]
    for found, do in faults:
        with found.once():
            do(laboratory, found)
    return [found for found, _ in faults]


def _signalled(laboratory: Laboratory, found: Found, number: signal.Signals) -> None:
    """A signal to the driver, which stops, and the same command again."""
    name = number.name.lower()
    spec, before = laboratory.spec(name), len(laboratory.lines())
    command = laboratory.start(spec)
    command.wait_for_units(laboratory.output(name), UNITS)
    command.signal(number)
    expect(command, INTERRUPTED if number == signal.SIGINT else STOPPED, GO_ON)
    _go_on(laboratory, spec, found, before)
    found.differences.append(laboratory.compare(name))


def _suspended(laboratory: Laboratory, found: Found, seconds: float) -> None:
    """A worker stands still for a while, and the job waits for what it has in hand."""
    before = len(laboratory.lines())
    command = laboratory.start(laboratory.spec("suspended"))
    command.wait_for_units(laboratory.output("suspended"), UNITS)
    worker = laboratory.cluster.actors()[0]
    worker.suspend()
    time.sleep(seconds)
    worker.resume()
    awake = time.time()
    expect(command, OK)
    found.seconds.append(
        min(at / 1e9 for at in markers(laboratory.output("suspended")).values() if at / 1e9 > awake) - awake
    )
    found.in_flight.append(sum(line.event == "again" for line in laboratory.lines(before)))
    found.differences.append(laboratory.compare("suspended"))


def _full_disk(laboratory: Laboratory, found: Found) -> None:
    """A disk of half the size that is needed, which is made larger after the run has stopped."""
    output = laboratory.output("disk")
    needed = int(subprocess.check_output(["du", "-sk", laboratory.output(UNDISTURBED)]).split()[0])
    spec, before = laboratory.spec("disk"), len(laboratory.lines())
    with _small_disk(output, needed // 2):
        expect(laboratory.start(spec), STOPPED, "no space left")
        subprocess.run(["mount", "-o", f"remount,size={needed * 4}k", output], check=True)
        _go_on(laboratory, spec, found, before)
        found.differences.append(laboratory.compare("disk"))


def _failing_store(laboratory: Laboratory, found: Found, share: float) -> None:
    """Calls that are answered with an error, or cut off. The driver starts a Ray that knows the store's variables."""
    with object_store() as store, patch.dict(os.environ, store.environment()):
        address = f"{store.bucket('faults')}/out"
        store.failing = share
        expect(laboratory.start(laboratory.spec("store", output=address), address=None), OK)
        store.failing = 0.0
        failed = sum(one.answer in (0, 500, 503) for one in store.requests)
        found.fault += f" ({failed} of {len(store.requests)})"
        written = Counter(one.key for one in store.requests if one.kind == "put" and one.answer == 200)
        found.again = sum(count > 1 for key, count in written.items() if "/_committed/" in key)
        found.differences.append(laboratory.compare("store", address=address))


def _corrupt_image(laboratory: Laboratory, found: Found) -> None:
    spec = _digits(laboratory, "corrupt", corrupt=BAD)
    expect(laboratory.start(spec), FAILED, "1 sample failed")
    found.differences.append(laboratory.compare("corrupt", CLEAN, BAD))


def _poisoned_image(laboratory: Laboratory, found: Found) -> None:
    before = len(laboratory.lines())
    spec = _digits(laboratory, "poisoned", "fault_network:crashing", marked=BAD)
    expect(laboratory.start(spec, retries=1), FAILED, "1 sample failed")
    found.in_flight.append(sum(line.event in ("again", "split") for line in laboratory.lines(before)))
    found.differences.append(laboratory.compare("poisoned", CLEAN, BAD))


def _too_little_memory(laboratory: Laboratory, found: Found) -> None:
    expect(laboratory.start(_digits(laboratory, "hungry", "fault_network:hungry")), OK)
    found.differences.append(laboratory.compare("hungry", CLEAN))


def _digits(laboratory: Laboratory, name: str, network: str = "mnist_cnn2", **bad: frozenset[int]) -> Path:
    """A spec of the job over a file of digits."""
    data = write_digits(laboratory.folder / f"{name}.parquet", laboratory.samples, **bad)
    model = {"name": network, "weights": "random", "id": "network", "mean": [0, 0, 0], "std": [1, 1, 1]}
    return laboratory.spec(name, dataset={"source": "parquet", "path": str(data)}, models=[model])


def _go_on(laboratory: Laboratory, spec: Path, found: Found, before: int) -> None:
    """The same command once more, to the end."""
    output = laboratory.output(spec.stem)
    seen = markers(output)
    found.in_flight.append(len(in_flight(laboratory.lines(before), seen)))
    command = laboratory.start(spec)
    expect(command, OK)
    now = markers(output)
    found.again = sum(now.get(one) != written for one, written in seen.items())
    found.seconds.append(min(at / 1e9 for one, at in now.items() if one not in seen) - command.began)


@contextmanager
def _small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of so many kB at a folder, for the time of the block."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)

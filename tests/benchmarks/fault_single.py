"""One of each fault that is no kill."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from fault_image import write_digits
from fault_laboratory import Found, Laboratory, expect
from fault_output import in_flight, markers
from object_store import object_store

from jobs.cli import FAILED, INTERRUPTED, OK, STOPPED

UNITS = 20
"""Units that are committed before a fault."""

GO_ON = "Go on with the same command"


def signalled(laboratory: Laboratory, reference: str, number: signal.Signals) -> Found:
    """A signal to the driver, and the same command again."""
    found = Found(f"{number.name} to the driver, which stops", 1)
    name = number.name.lower()
    spec, before = laboratory.spec(name), len(laboratory.lines())
    command = laboratory.start(spec)
    command.wait_for_units(laboratory.output(name), UNITS)
    command.signal(number)
    expect(command, INTERRUPTED if number == signal.SIGINT else STOPPED, GO_ON)
    seen = markers(laboratory.output(name))
    found.in_flight.append(len(in_flight(laboratory.lines(before), seen)))
    _again(laboratory, spec, name, found, seen)
    found.differences.append(laboratory.compare(name, reference))
    return found


def suspended(laboratory: Laboratory, reference: str, seconds: float) -> Found:
    """SIGSTOP to a worker for a while; the job waits for it, or gives its work to others."""
    found = Found(f"SIGSTOP of a worker for {seconds:.0f} s", 1)
    spec = laboratory.spec("suspended")
    command = laboratory.start(spec)
    command.wait_for_units(laboratory.output("suspended"), UNITS)
    worker = laboratory.cluster.actors()[0]
    worker.suspend()
    time.sleep(seconds)
    worker.resume()
    awake = time.time()
    expect(command, OK)
    written = [at / 1e9 for at in markers(laboratory.output("suspended")).values()]
    found.seconds += [min(one for one in written if one > awake) - awake]
    found.differences.append(laboratory.compare("suspended", reference))
    return found


def full_disk(laboratory: Laboratory, reference: str) -> Found:
    """A disk that fills up, and is made larger."""
    found = Found("a full disk, then a larger one", 1)
    used = int(subprocess.check_output(["du", "-sk", laboratory.output(reference)]).split()[0])
    spec, before = laboratory.spec("disk"), len(laboratory.lines())
    with small_disk(laboratory.output("disk"), used * 1024 // 2):
        expect(laboratory.start(spec), STOPPED, "no space left")
        seen = markers(laboratory.output("disk"))
        found.in_flight.append(len(in_flight(laboratory.lines(before), seen)))
        subprocess.run(["mount", "-o", f"remount,size={used * 4}k", laboratory.output("disk")], check=True)
        _again(laboratory, spec, "disk", found, seen)
        found.differences.append(laboratory.compare("disk", reference))
    return found


def failing_store(laboratory: Laboratory, reference: str, share: float = 0.05) -> Found:
    """An object store that answers some of its calls with an error, or cuts them off."""
    found = Found(f"an object store that fails {share:.0%} of its calls", 1)
    with object_store() as store, patch.dict(os.environ, store.environment()):
        address = f"{store.bucket('faults')}/out"
        store.failing = share
        # A Ray of its own, whose workers know the store's variables.
        expect(laboratory.start(laboratory.spec("store", output=address), address=None), OK)
        failed = sum(one.answer in (0, 500, 503) for one in store.requests)
        store.failing = 0.0
        found.fault += f" ({failed} of {len(store.requests)})"
        puts = Counter(
            one.key for one in store.requests if one.kind == "put" and "/_committed/" in one.key and one.answer == 200
        )
        found.committed = sum(count > 1 for count in puts.values())
        found.differences.append(laboratory.compare("store", reference))
    return found


def bad_images(laboratory: Laboratory) -> list[Found]:
    """A corrupt image, one that kills its worker, and images that memory does not suffice for."""
    clean = _digits(laboratory, "clean", "mnist_cnn2")
    laboratory.undisturbed(clean)
    corrupt, poisoned = frozenset({7}), frozenset({40})
    found = [Found("a corrupt image", 1, failing=corrupt), Found("an image that kills its worker each time", 1)]
    expect(laboratory.start(_digits(laboratory, "corrupt", "mnist_cnn2", corrupt=corrupt)), FAILED, "1 samples failed")
    expect(
        laboratory.start(_digits(laboratory, "poisoned", "fault_network:crashing", marked=poisoned), retries=1),
        FAILED,
        "1 samples failed",
    )
    found[1].failing = poisoned
    for one, name in zip(found, ("corrupt", "poisoned"), strict=True):
        one.differences.append(laboratory.compare(name, "clean", one.failing))
    hungry = Found("a worker without memory for a batch", 1)
    expect(laboratory.start(_digits(laboratory, "hungry", "fault_network:hungry")), OK)
    hungry.differences.append(laboratory.compare("hungry", "clean"))
    return [*found, hungry]


def _digits(laboratory: Laboratory, name: str, network: str, **images: frozenset[int]) -> Path:
    data = write_digits(laboratory.folder / f"{name}.parquet", laboratory.samples, **images)
    model = {"name": network, "weights": "random", "id": "network", "mean": [0, 0, 0], "std": [1, 1, 1]}
    return laboratory.spec(name, dataset={"source": "parquet", "path": str(data)}, models=[model])


def _again(laboratory: Laboratory, spec: Path, name: str, found: Found, seen: dict[str, int]) -> None:
    """The same command once more, to the end."""
    command = laboratory.start(spec)
    expect(command, OK)
    now = markers(laboratory.output(name))
    found.committed += sum(now.get(one) != written for one, written in seen.items())
    found.seconds.append(min(at / 1e9 for one, at in now.items() if one not in seen) - command.began)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes at a folder, for the time of the block."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)

"""Claims: which stretches of work a run has taken, so that another run of the same output takes others meanwhile.

Every run keeps one file, `claims/<run>.json`, which it rewrites every few seconds. It names the stretches that the run
holds and those that it wants. No result depends on it: where claims fail (a store that does not answer, a run that
stood still and comes back) work is done twice, and the commits of both are the same.

An object store has no lock and no file that only one can create. Files that each have one writer will do: who wants a
stretch says so first and looks at the others' files then. Of two runs at least one sees the other; the younger gives
way, and the elder waits until it has, or takes another stretch.

Source: the one-bit algorithm, Lamport 1986, The Mutual Exclusion Problem, Part II. Ours does not wait for a stretch.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from pipeline.errors import FatalError, RetryableError
from pipeline.files import Folder

CLAIMS = "claims"

EVERY = 10.0
"""Seconds between two signs of life."""

EXPIRED = 60.0
"""Seconds without one after which a run's claims no longer count."""

LOOK_EVERY = 2.0
"""Seconds that a refusal holds for, before the others' files are read again."""

_PATIENCE = 3  # looks at a younger run that wants the same
_PAUSE = 0.05  # seconds between them


@dataclass(frozen=True, slots=True, order=True)
class Stretch:
    """A piece of work that is claimed as a whole: what is found about the samples at start ≤ p < stop.

    Attributes:
        subject: what the samples and their model are, such as the folder of the predictions.
        start: first position.
        stop: one past the last position.
    """

    subject: str
    start: int
    stop: int

    def meets(self, other: Stretch) -> bool:
        """Whether the two have a position in common."""
        return self.subject == other.subject and self.start < other.stop and other.start < self.stop


@dataclass(frozen=True, slots=True)
class _Neighbour:
    """Another run, as its file says."""

    run: str
    held: tuple[Stretch, ...]
    wanted: tuple[Stretch, ...]


class Claims:
    """The claims of one run, from its planning to its end; a context manager.

    Attributes:
        run: the run's name among the claims. Names sort by age.
        shared: whether another run was at work on the output at any time since this one began.
    """

    def __init__(
        self,
        folder: Folder,
        every: float = EVERY,
        look_every: float = LOOK_EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make claims on the work of an output.

        Args:
            folder: the output.
            every: seconds between two signs of life; on an object store, one small put each.
            look_every: seconds that a refusal holds for.
            clock: seconds from any beginning on, which go on while the process is suspended.
        """
        self.run = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{uuid.uuid4().hex[:8]}"
        self.shared = False
        self._folder = folder
        self._every, self._look_every, self._clock = every, look_every, clock
        self._guard = threading.RLock()
        self._held: set[Stretch] = set()
        self._wanted: set[Stretch] = set()
        self._neighbours: Sequence[_Neighbour] = ()
        self._gone: Sequence[str] = ()
        self._looked, self._written = -EXPIRED, clock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="claims", daemon=True)

    def __enter__(self) -> Self:
        with suppress(FatalError, RetryableError):
            self._write()
            self._look()
            if not self._neighbours:
                self._clean()
        # What ended before now is in the plan, which is made from here on.
        self.shared = bool(self._neighbours)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(FatalError, RetryableError), self._guard:
            self._held, self._wanted = set(), set()
            self._look()
            if self._neighbours:
                # Who began while this run was at work has to learn that what it planned may be done by now.
                self._write()
            else:
                self._clean()
                self._folder.remove(f"{CLAIMS}/{self.run}.json")

    @property
    def neighbours(self) -> int:
        """How many other runs were at work at the last look."""
        return len(self._neighbours)

    def holds(self, stretch: Stretch) -> bool:
        """Whether the stretch is this run's."""
        with self._guard:
            return stretch in self._held

    def take(self, stretch: Stretch) -> bool:
        """Claim a stretch; False where another run has it or is about to.

        Alone on an output it costs a small file and a listing, and a file again when it is given back.
        """
        with self._guard:
            if stretch in self._held:
                return True
            if self._elsewhere(stretch) and self._clock() - self._looked < self._look_every:
                return False
            self._wanted.add(stretch)
            try:
                taken = self._won(stretch)
            except (FatalError, RetryableError):
                # What is wrong with the store will show where results are written; for the work's sake, go on.
                taken = True
            self._wanted.discard(stretch)
            if taken:
                self._held.add(stretch)
            if self._neighbours:
                self._tell()
            return taken

    def give_back(self, stretch: Stretch) -> None:
        """A stretch is finished, or another run has done it."""
        with self._guard:
            if stretch in self._held:
                self._held.discard(stretch)
                self._tell()

    def _won(self, stretch: Stretch) -> bool:
        self._write()
        for _ in range(_PATIENCE):
            self._look()
            if self._elsewhere(stretch):
                return False
            younger = (one for one in self._neighbours if one.run > self.run)
            if not any(stretch.meets(wanted) for one in younger for wanted in one.wanted):
                return True
            time.sleep(_PAUSE)
        return False

    def _elsewhere(self, stretch: Stretch) -> bool:
        """Whether another run holds the stretch, or an elder one wants it."""
        return any(
            stretch.meets(claimed)
            for one in self._neighbours
            for claimed in (*one.held, *(one.wanted if one.run < self.run else ()))
        )

    def _look(self) -> None:
        """Read what the other runs claim."""
        times = self._folder.times(CLAIMS)
        # The store's own clock, so that no two machines have to agree on the time.
        now = times.pop(f"{self.run}.json", None) or max(times.values(), default=0.0)
        self.shared = self.shared or bool(times)
        found = {name: self._neighbour(name, now - written) for name, written in times.items()}
        self._neighbours = [one for one in found.values() if one is not None]
        self._gone = [name for name, one in found.items() if one is None]
        self._looked = self._clock()

    def _neighbour(self, name: str, silent: float) -> _Neighbour | None:
        """A run by its file; None where it is not at work any more."""
        try:
            said: dict[str, Any] = json.loads(self._folder.read_bytes(f"{CLAIMS}/{name}"))
            ended, place, process = bool(said["ended"]), said["host"], int(said["process"])
            held, wanted = _stretches(said["held"]), _stretches(said["wanted"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None  # it has ended since the listing, or is no file of this program
        killed = place == socket.gethostname() and not _is_running(process)
        return None if ended or killed or silent > EXPIRED else _Neighbour(name.removesuffix(".json"), held, wanted)

    def _write(self) -> None:
        self._folder.write_bytes(
            f"{CLAIMS}/{self.run}.json",
            json.dumps(
                {
                    "host": socket.gethostname(),
                    "process": os.getpid(),
                    "ended": self._ended.is_set(),
                    "held": [[one.subject, one.start, one.stop] for one in sorted(self._held)],
                    "wanted": [[one.subject, one.start, one.stop] for one in sorted(self._wanted)],
                }
            ).encode(),
        )
        self._written = self._clock()

    def _tell(self) -> None:
        with suppress(FatalError, RetryableError):
            self._write()

    def give_sign(self) -> None:
        """A sign of life. After too long without one, others may have taken what was held: it has to be taken anew."""
        with self._guard:
            if self._clock() - self._written > EXPIRED:
                self._held, self.shared = set(), True
            self._tell()

    def _beat(self) -> None:
        while not self._ended.wait(self._every):
            self.give_sign()

    def _clean(self) -> None:
        """Take away the files of runs that are gone; nobody is there whom they could tell anything."""
        for name in self._gone:
            self._folder.remove(f"{CLAIMS}/{name}")


def _stretches(said: Iterable[Any]) -> tuple[Stretch, ...]:
    return tuple(Stretch(str(subject), int(start), int(stop)) for subject, start, stop in said)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True

"""Claims: which stretches of work a run has taken, so that another run of the same output takes others meanwhile.

Under `claims/` every run keeps a sign of life, `<run>.json`, which it rewrites every few seconds, and an empty file for
each stretch that it has taken or is about to take, whose name says which. No result depends on it: where claims fail (a
store that does not answer, a run that stood still and comes back) work is done twice, and the commits of both are the
same.

An object store has no lock and no file that only one can create. Files that each have one writer will do: who wants a
stretch writes its file first and lists the others' then. Of two runs at least one sees the other; the younger gives
way, and the elder waits until it has, or takes another stretch. No file but the sign of life is written twice: stores
limit how often one may be.

Source: the one-bit algorithm, Lamport 1986, The Mutual Exclusion Problem, Part II. Ours does not wait for a stretch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
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
"""Seconds that a refusal holds for, before the others' files are listed again."""

CLEARING = 30.0
"""Seconds that a run waits for another one which takes results away."""

_PATIENCE = 3  # looks at a younger run that wants the same
_PAUSE = 0.05  # seconds between them
_WHOLE_SECONDS = 2.0
_CLAIM = re.compile(r"(.+)@(\d+)-(\d+)-([0-9a-f]{16})")


@lru_cache(maxsize=4096)
def _key(subject: str) -> str:
    return hashlib.sha256(subject.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class _Claim:
    """A stretch as a file's name has it: the subject by its hash."""

    start: int
    stop: int
    key: str

    @classmethod
    def of(cls, stretch: Stretch) -> _Claim:
        return cls(stretch.start, stretch.stop, _key(stretch.subject))

    def meets(self, other: _Claim) -> bool:
        """Whether the two have a position in common."""
        return self.key == other.key and self.start < other.stop and other.start < self.stop


@dataclass(frozen=True, slots=True)
class _Neighbour:
    """Another run that is at work; `clearing`: it takes back what earlier ones committed."""

    run: str
    clearing: bool
    claims: tuple[_Claim, ...]

    def claims_of(self, claim: _Claim) -> bool:
        return any(claim.meets(one) for one in self.claims)


class Claims:
    """The claims of one run, from before its planning to its end; a context manager.

    Attributes:
        run: the run's name among the claims. Names sort by age.
        shared: whether another run was at work on the output at any time since this one began.
    """

    def __init__(
        self,
        folder: Folder,
        *,
        clearing: bool = False,
        every: float = EVERY,
        look_every: float = LOOK_EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make claims on the work of an output.

        Args:
            folder: the output.
            clearing: take nothing yet, and keep others from planning, until `cleared`: results are to be taken away.
            every: seconds between two signs of life; on an object store, one small put each.
            look_every: seconds that a refusal holds for.
            clock: seconds from any beginning on, which go on while the process is suspended.
        """
        self.run = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{uuid.uuid4().hex[:8]}"
        self.shared = False
        self._folder, self._clearing = folder, clearing
        self._every, self._look_every, self._clock = every, look_every, clock
        self._guard = threading.RLock()
        self._held: set[Stretch] = set()
        self._leftover: set[str] = set()
        self._neighbours: list[_Neighbour] = []
        self._said: dict[str, tuple[float, dict[str, Any]]] = {}
        self._gone: list[str] = []
        self._looked, self._written = -EXPIRED, clock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="claims", daemon=True)

    def __enter__(self) -> Self:
        """Begin.

        Raises:
            FatalError: results are to be taken away, and another run is at work on them.
            RetryableError: another run is taking results away, or, where this one is to, whether others are at work
                cannot be seen.
        """
        if self._clearing:
            self._begin_alone()
        else:
            with suppress(FatalError):
                self._begin_beside_others()
        # What ended before now is in the plan, which is made from here on.
        self.shared = bool(self._neighbours)
        self._thread.start()
        return self

    def _begin_alone(self) -> None:
        self._write()
        self._look()
        if self._neighbours:
            self._remove(f"{self.run}.json")
            raise FatalError(
                f"{self._folder.uri}: another run is at work here, and --fresh would take its results away; stop it"
            )
        self._clean()

    def _begin_beside_others(self) -> None:
        until = self._clock() + CLEARING
        with suppress(RetryableError):
            self._write()
            self._look()
        while any(one.clearing for one in self._neighbours):
            if self._clock() > until:
                self._remove(f"{self.run}.json")
                raise RetryableError(
                    f"{self._folder.uri}: another run is taking results away (--fresh); run the same command again"
                )
            time.sleep(_PAUSE * 10)
            with suppress(RetryableError):
                self._look()
        if not self._neighbours:
            self._clean()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End: nothing is held any more."""
        self._ended.set()
        self._thread.join()
        with suppress(FatalError, RetryableError), self._guard:
            self.give_all_back()
            self._look()
            if self._neighbours:
                # Who began while this run was at work has to learn that what it planned may be done by now.
                self._write()
            else:
                self._clean()
                self._remove(f"{self.run}.json")

    @property
    def neighbours(self) -> int:
        """How many other runs were at work at the last look."""
        return len(self._neighbours)

    def cleared(self) -> None:
        """Results are taken away; from here on others may plan.

        Raises:
            FatalError, RetryableError: it cannot be told; others wait until this run's sign of life is old.
        """
        with self._guard:
            self._clearing = False
            self._write()

    def holds(self, stretch: Stretch) -> bool:
        """Whether the stretch is this run's."""
        with self._guard:
            return stretch in self._held

    def take(self, stretch: Stretch) -> bool:
        """Claim a stretch; False where another run has it or is about to.

        Alone on an output it costs an empty file and a listing, and taking the file away when it is given back.
        """
        with self._guard:
            if stretch in self._held:
                return True
            claim = _Claim.of(stretch)
            try:
                if self._neighbours and self._clock() - self._looked >= self._look_every:
                    self._look()
                taken = not self._claimed(claim) and self._won(claim)
            except (FatalError, RetryableError):
                # What is wrong with the store will show where results are written; for the work's sake, go on.
                taken = True
            if taken:
                self._held.add(stretch)
            return taken

    def give_back(self, stretch: Stretch) -> None:
        """A stretch is finished, or there is nothing of it to be done now."""
        with self._guard:
            if stretch in self._held:
                self._held.discard(stretch)
                self._remove(self._name(_Claim.of(stretch)))

    def give_all_back(self) -> None:
        """Nothing that is held can be worked on now."""
        with self._guard:
            for stretch in list(self._held):
                self.give_back(stretch)

    def give_sign(self) -> None:
        """A sign of life. After too long without one, others may have taken what was held: it has to be taken anew."""
        with self._guard:
            expired = self._clock() - self._written > EXPIRED
            if expired:
                self.shared = True
                self.give_all_back()
            for name in list(self._leftover):
                self._remove(name)
            if expired and self._leftover:
                return  # with a sign of life they would count again
            with suppress(FatalError, RetryableError):
                self._write()

    def _won(self, claim: _Claim) -> bool:
        self._folder.write_bytes(f"{CLAIMS}/{self._name(claim)}", b"")
        for _ in range(_PATIENCE):
            self._look()
            claimed = [one.run for one in self._neighbours if one.claims_of(claim)]
            if not claimed:
                return True
            if min(claimed) < self.run:
                break
            time.sleep(_PAUSE)
        self._remove(self._name(claim))
        return False

    def _claimed(self, claim: _Claim) -> bool:
        return any(one.claims_of(claim) for one in self._neighbours)

    def _look(self) -> None:
        """List what the other runs claim."""
        times = self._folder.times(CLAIMS)
        # The store's own clock, so that no two machines have to agree on the time.
        mine = [at for name, at in times.items() if name.startswith(self.run)]
        now = max(mine or times.values(), default=0.0)
        claims: dict[str, list[_Claim]] = defaultdict(list)
        # What is just being written has a name of neither kind.
        files = {name: name.removesuffix(".json") for name in times if name.endswith(".json")}
        runs = set(files.values()) - {self.run}
        for name in times:
            if match := _CLAIM.fullmatch(name):
                claims[match[1]].append(_Claim(int(match[2]), int(match[3]), match[4]))
                files[name] = match[1]
        found = {run: self._neighbour(run, times[f"{run}.json"], now, tuple(claims[run])) for run in runs}
        self.shared = self.shared or bool(runs)
        self._neighbours = [one for one in found.values() if one is not None]
        alive = {one.run for one in self._neighbours} | {self.run}
        self._gone = [name for name, run in files.items() if run not in alive]
        self._looked = self._clock()

    def _neighbour(self, run: str, written: float, now: float, claims: tuple[_Claim, ...]) -> _Neighbour | None:
        """A run by its sign of life; None where it is not at work any more."""
        try:
            said = self._sign(run, written, now)
            ended, clearing, place, process = said["ended"], said["clearing"], said["host"], int(said["process"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None  # it has ended since the listing, or is no file of this program
        killed = place == socket.gethostname() and not _is_running(process)
        return None if ended or killed or now - written > EXPIRED else _Neighbour(run, bool(clearing), claims)

    def _sign(self, run: str, written: float, now: float) -> Mapping[str, Any]:
        """What a run says of itself, read again only when it was written again; some stores count whole seconds."""
        known = self._said.get(run)
        if known is None or known[0] != written or now - written < _WHOLE_SECONDS:
            known = self._said[run] = (written, json.loads(self._folder.read_bytes(f"{CLAIMS}/{run}.json")))
        return known[1]

    def _name(self, claim: _Claim) -> str:
        return f"{self.run}@{claim.start}-{claim.stop}-{claim.key}"

    def _write(self) -> None:
        sign = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "ended": self._ended.is_set(),
            "clearing": self._clearing,
        }
        self._folder.write_bytes(f"{CLAIMS}/{self.run}.json", json.dumps(sign).encode())
        self._written = self._clock()

    def _remove(self, name: str) -> None:
        """Take a file of this run away, now or with one of the next signs of life."""
        self._leftover.add(name)
        with suppress(FatalError, RetryableError):
            self._folder.remove(f"{CLAIMS}/{name}")
            self._leftover.discard(name)

    def _beat(self) -> None:
        while not self._ended.wait(self._every):
            self.give_sign()

    def _clean(self) -> None:
        """Take away the files of runs that are gone; nobody is there whom they could tell anything."""
        for name in self._gone:
            with suppress(FatalError, RetryableError):
                self._folder.remove(f"{CLAIMS}/{name}")


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True

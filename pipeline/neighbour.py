"""The other runs of an output and what they claim, by the files that they keep under `claims/`.

A run's sign of life is `<run>.json`, rewritten every few seconds. What it has taken, or is about to, are empty files
whose names say all: `<run>@<start>-<stop>-<hash of the subject>`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import uuid
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from pipeline.files import Folder

CLAIMS = "claims"

EXPIRED = 60.0
"""Seconds without a sign of life after which a run's claims no longer count."""

_CLAIM = re.compile(r"(.+)@(\d+)-(\d+)-([0-9a-f]{16})")
_WHOLE_SECONDS = 2.0  # some stores count no finer


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


@lru_cache(maxsize=4096)
def _key(subject: str) -> str:
    return hashlib.sha256(subject.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Claim:
    """A stretch as a file's name has it, with its subject by its hash."""

    start: int
    stop: int
    key: str

    @classmethod
    def of(cls, stretch: Stretch) -> Self:
        """The claim of a stretch."""
        return cls(stretch.start, stretch.stop, _key(stretch.subject))

    def file(self, run: str) -> str:
        """Name of the file by which a run makes it."""
        return f"{run}@{self.start}-{self.stop}-{self.key}"

    def meets(self, other: Claim) -> bool:
        """Whether the two have a position in common."""
        return self.key == other.key and self.start < other.stop and other.start < self.stop


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another run that is at work.

    Attributes:
        run: its name among the claims.
        clearing: that it takes away what earlier runs committed.
        claims: what it has taken or wants.
    """

    run: str
    clearing: bool
    claims: tuple[Claim, ...]

    def claims_of(self, claim: Claim) -> bool:
        """Whether it claims any position of another's claim."""
        return any(claim.meets(one) for one in self.claims)


def sign_file(run: str) -> str:
    """Name of a run's sign of life."""
    return f"{run}.json"


def sign(*, ended: bool, clearing: bool) -> bytes:
    """What the sign of life of a run in this process holds."""
    said = {"place": _place(), "process": os.getpid(), "ended": ended, "clearing": clearing}
    return json.dumps(said).encode()


@dataclass(frozen=True, slots=True)
class Seen:
    """What one listing shows.

    Attributes:
        neighbours: runs that are at work.
        any_run: whether there is a sign of any other run, one that has ended included.
        gone: files of runs that are not at work any more.
    """

    neighbours: tuple[Neighbour, ...]
    any_run: bool
    gone: tuple[str, ...]


class Neighbours:
    """Looks at the files of the other runs of an output.

    Args:
        folder: the output.
        run: the name of the run that looks.
    """

    def __init__(self, folder: Folder, run: str) -> None:
        self._folder, self._run = folder, run
        self._said: dict[str, tuple[float, dict[str, Any]]] = {}

    def look(self) -> Seen:
        """List what there is: one call, and one for each sign of life that was written since the last look.

        Raises:
            FatalError, RetryableError: the store refuses, or does not answer.
        """
        times = self._folder.times(CLAIMS)
        # The store's own clock, so that no two machines have to agree on the time.
        mine = [at for name, at in times.items() if name.startswith(self._run)]
        now = max(mine or times.values(), default=0.0)
        # What is just being written has a name of neither kind.
        files = {name: name.removesuffix(".json") for name in times if name.endswith(".json")}
        runs = set(files.values()) - {self._run}
        claims: dict[str, list[Claim]] = defaultdict(list)
        for name in times:
            if match := _CLAIM.fullmatch(name):
                claims[match[1]].append(Claim(int(match[2]), int(match[3]), match[4]))
                files[name] = match[1]
        found = [self._neighbour(run, times[sign_file(run)], now, tuple(claims[run])) for run in sorted(runs)]
        neighbours = tuple(one for one in found if one is not None)
        alive = {self._run, *(one.run for one in neighbours)}
        return Seen(neighbours, bool(runs), tuple(name for name, run in files.items() if run not in alive))

    def _neighbour(self, run: str, written: float, now: float, claims: tuple[Claim, ...]) -> Neighbour | None:
        """A run by its sign of life; None where it is not at work any more."""
        try:
            said = self._sign(run, written, now)
            ended, clearing, place, process = said["ended"], said["clearing"], said["place"], int(said["process"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None  # it has ended since the listing, or is no file of this program
        killed = place == _place() != "" and not _is_running(process)
        return None if ended or killed or now - written > EXPIRED else Neighbour(run, bool(clearing), claims)

    def _sign(self, run: str, written: float, now: float) -> Mapping[str, Any]:
        """What a run says of itself, read again only when it was written again."""
        known = self._said.get(run)
        if known is None or known[0] != written or now - written < _WHOLE_SECONDS:
            known = self._said[run] = (written, json.loads(self._folder.read_bytes(f"{CLAIMS}/{sign_file(run)}")))
        return known[1]


@lru_cache(maxsize=1)
def _place() -> str:
    """Where the numbers of processes mean what they do here; empty where that cannot be told.

    Machines and containers may share a name, and containers a machine.
    """
    if not Path("/proc/self").exists():
        return f"{socket.gethostname()}/{uuid.getnode():x}"
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True

"""Claims: which stretches of work a run has taken, so that another run of the same output takes others meanwhile.

No result depends on them: where claims fail (a store that does not answer, a run that stood still and comes back) work
is done twice, and the commits of both are the same.

An object store has no lock and no file that only one can create. Files that each have one writer will do (see
`pipeline.neighbour`): who wants a stretch writes its file first and lists the others' then. Of two runs at least one
sees the other; the younger gives way, and the elder waits until it has, or takes another stretch. No file but the sign
of life is written twice: stores limit how often one may be.

Source: the one-bit algorithm, Lamport 1986, The Mutual Exclusion Problem, Part II. Ours does not wait for a stretch.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from pipeline.errors import FatalError, RetryableError
from pipeline.files import Folder
from pipeline.neighbour import CLAIMS, EXPIRED, Claim, Neighbour, Neighbours, Stretch, sign, sign_file

EVERY = 10.0
"""Seconds between two signs of life."""

LOOK_EVERY = 2.0
"""Seconds that a refusal holds for, before the others' files are listed again."""

_PATIENCE = 3  # looks at a younger run that wants the same
_PAUSE = 0.05  # seconds between them
_CLEARING_PAUSE = 0.5  # between looks at a run that takes results away


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
        say: Callable[[str], None] = lambda line: None,
        every: float = EVERY,
        look_every: float = LOOK_EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make claims on the work of an output.

        Args:
            folder: the output.
            say: is told in one line what is waited for.
            every: seconds between two signs of life; on an object store, one small put each.
            look_every: seconds that a refusal holds for.
            clock: seconds from any beginning on, which go on while the process is suspended.
        """
        self.run = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{uuid.uuid4().hex[:8]}"
        self.shared = False
        self._folder, self._say, self._clearing = folder, say, False
        self._every, self._look_every, self._clock = every, look_every, clock
        self._guard = threading.RLock()
        self._held: set[Stretch] = set()
        self._leftover: set[str] = set()
        self._others = Neighbours(folder, self.run)
        self._neighbours: tuple[Neighbour, ...] = ()
        self._gone: tuple[str, ...] = ()
        self._looked, self._written = -EXPIRED, clock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="claims", daemon=True)

    def __enter__(self) -> Self:
        """Begin, once no other run takes results away."""
        with suppress(FatalError, RetryableError):
            self._write()
            self._look()
        self._thread.start()
        try:
            with suppress(FatalError):
                self._await_clearing()
                if not self._neighbours:
                    self._clean()
        except BaseException:
            # A signal while this run waited: nobody else would end it.
            self._end()
            raise
        # What ended before now is in the plan, which is made from here on.
        self.shared = bool(self._neighbours)
        return self

    def _await_clearing(self) -> None:
        """Wait as long as another run that is alive takes results away."""
        told = False
        while any(one.clearing for one in self._neighbours):
            if not told:
                self._say("another run of this output takes earlier results away (--fresh): waiting for it")
            told = True
            time.sleep(_CLEARING_PAUSE)
            with suppress(RetryableError), self._guard:
                self._look()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End: nothing is held any more."""
        self._end()

    def _end(self) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(FatalError, RetryableError), self._guard:
            self.give_all_back()
            if self._leftover:
                return  # the store does not answer; without a sign of life they soon do not count
            self._look()
            if self._neighbours:
                # Who began while this run was at work has to learn that what it planned may be done by now.
                self._write()
                # Of runs that end at the same moment each saw the other at work; the last to write sees none.
                self._look()
            if not self._neighbours:
                self._clean()
                self._remove(sign_file(self.run))

    def look_again(self) -> None:
        """See who is at work by now, where the last look is not just over."""
        with suppress(FatalError, RetryableError), self._guard:
            if self._clock() - self._looked >= self._look_every:
                self._look()

    @property
    def neighbours(self) -> int:
        """How many other runs were at work at the last look."""
        return len(self._neighbours)

    @contextmanager
    def clearing(self) -> Iterator[None]:
        """Around taking results away: others begin after it.

        Raises:
            FatalError: another run is at work on them.
            RetryableError: whether others are at work cannot be seen.
        """
        try:
            with self._guard:
                self._clearing = True
                self._write()
                self._look()
            if self._neighbours:
                raise FatalError(
                    f"{self._folder.uri}: another run is at work here, and --fresh would take its results away; stop it"
                )
            # Without the guard, so that signs of life go on.
            yield
        finally:
            with self._guard:
                self._clearing = False
                self._tell()

    def holds(self, stretch: Stretch) -> bool:
        """Whether the stretch is this run's."""
        with self._guard:
            return stretch in self._held

    def take(self, stretch: Stretch) -> bool:
        """Claim a stretch; False where another run has it or is about to.

        Alone on an output it costs an empty file and a listing, and taking the file away when it is given back, which
        pyarrow makes three calls of on S3.
        """
        with self._guard:
            if stretch in self._held:
                return True
            claim = Claim.of(stretch)
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
                self._remove(Claim.of(stretch).file(self.run))

    def give_all_back(self) -> None:
        """Nothing that is held can be worked on now."""
        with self._guard:
            self._leftover |= {Claim.of(stretch).file(self.run) for stretch in self._held}
            self._held.clear()
            self._remove_leftover()

    def give_sign(self) -> None:
        """A sign of life. After too long without one, others may have taken what was held: it has to be taken anew."""
        with self._guard:
            expired = self._clock() - self._written > EXPIRED
            if expired:
                self.shared = True
                self.give_all_back()
            self._remove_leftover()
            if expired and self._leftover:
                return  # with a sign of life they would count again
            self._tell()

    def _won(self, claim: Claim) -> bool:
        # What could not be taken away when it was given back is wanted now.
        self._leftover.discard(claim.file(self.run))
        self._folder.write_bytes(f"{CLAIMS}/{claim.file(self.run)}", b"")
        for _ in range(_PATIENCE):
            self._look()
            claimed = [one.run for one in self._neighbours if one.claims_of(claim)]
            if not claimed:
                return True
            if min(claimed) < self.run:
                break
            time.sleep(_PAUSE)
        self._remove(claim.file(self.run))
        return False

    def _claimed(self, claim: Claim) -> bool:
        return any(one.claims_of(claim) for one in self._neighbours)

    def _look(self) -> None:
        """List what the other runs claim."""
        seen = self._others.look()
        self._neighbours, self._gone = seen.neighbours, seen.gone
        self.shared = self.shared or seen.any_run
        self._looked = self._clock()

    def _write(self) -> None:
        content = sign(ended=self._ended.is_set(), clearing=self._clearing)
        self._folder.write_bytes(f"{CLAIMS}/{sign_file(self.run)}", content)
        self._written = self._clock()

    def _tell(self) -> None:
        with suppress(FatalError, RetryableError):
            self._write()

    def _remove(self, name: str) -> None:
        """Take a file of this run away, now or with one of the next signs of life."""
        self._leftover.add(name)
        self._remove_leftover()

    def _remove_leftover(self) -> None:
        """Take away what is to be, as long as the store answers: each call to one that does not takes half a minute."""
        with suppress(FatalError, RetryableError):
            for name in list(self._leftover):
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

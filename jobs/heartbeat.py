"""A run's sign of life: a small file beside its record, rewritten while the run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from jobs.repeating import repeating
from jobs.status import EVERY, progress_file, sign_of_life
from jobs.tally import Tally
from pipeline.errors import FatalError, RetryableError
from pipeline.store import Output


@contextmanager
def signs_of_life(output: Output, run: str, tally: Tally, every: float = EVERY) -> Iterator[None]:
    """Write how far a run is, at once and again every few seconds, until the block ends; then take the file away.

    A run that is killed leaves the file, which says when it was last seen. That a sign cannot be written (a full disk,
    a store that does not answer) is no reason to stop: the next one may be.

    Args:
        output: where the run's record is.
        run: its name.
        tally: its counts.
        every: seconds between two signs: on an object store, one small put each.
    """

    def write() -> None:
        with suppress(FatalError, RetryableError):
            output.write_bytes(progress_file(run), sign_of_life(tally.stages(), tally.left_seconds()))

    write()
    try:
        with repeating(write, every, "signs of life"):
            yield
    finally:
        with suppress(FatalError, RetryableError):
            output.remove(progress_file(run))

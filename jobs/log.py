"""The log of a run: one JSON line an event, with run, stage and unit."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cluster.executor import Event
from cluster.log import JsonLines, unit_fields
from pipeline.errors import FatalError
from pipeline.stages.variant import Job

STANDARD_ERROR = "-"

_LOGGER = "heatline.run"
# Nobody but `logging_to` says where its lines go.
logging.getLogger(_LOGGER).propagate = False
logging.getLogger(_LOGGER).addHandler(logging.NullHandler())
_LEVELS: Mapping[str, int] = {
    "again": logging.WARNING,
    "split": logging.WARNING,
    "isolated": logging.ERROR,
    "lost": logging.ERROR,
}


class RunLog:
    """Writes what happens to a run and its units; without a place to write to, nothing.

    Every line has `time`, `level`, `message`, `event` and `run`; those of units have `stage`, `model`, `variant`,
    `unit` (`start-stop`), `samples`, `worker`, and when one is done `rows`, `failures` and the seconds of loading,
    computing and writing.
    """

    def __init__(self) -> None:
        self._logger = logging.getLogger(_LOGGER)
        self._job: Job | None = None

    def begin(self, job: Job) -> None:
        """From here on lines are of the run that this job is of."""
        self._job = job

    def say(self, event: str, message: str, level: int = logging.INFO, **fields: Any) -> None:
        """A line about the run as a whole.

        Args:
            event: in a word: `begun`, `note`, `ended`, `refused`.
            message: for people.
            level: of the standard library's logging.
            fields: what else there is to know; values as JSON has them.
        """
        run = self._job.run if self._job is not None else None
        self._logger.log(level, "%s", message, extra={"fields": {"event": event, "run": run, **fields}})

    def show(self, event: Event) -> None:
        """A line about a unit."""
        if event.unit is None or self._job is None:
            self.say(event.kind, event.reason)
            return
        message = f"{event.unit.variant} [{event.unit.start}, {event.unit.stop}): {event.kind}"
        fields = {**unit_fields(self._job, event.unit), "worker": None if event.worker is None else str(event.worker)}
        if event.report is not None:
            fields |= {
                "rows": event.report.receipt.rows,
                "failures": event.report.receipt.failures,
                "load_seconds": round(event.report.load_seconds, 3),
                "compute_seconds": round(event.report.compute_seconds, 3),
                "write_seconds": round(event.report.write_seconds, 3),
            }
        if event.reason:
            message, fields = f"{message}: {event.reason}", {**fields, "reason": event.reason}
        self.say(event.kind, message, _LEVELS.get(event.kind, logging.INFO), **fields)


class _File(logging.FileHandler):
    """A log file that stops no run when it cannot be written any more."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (the name of the base class)
        """A full disk is told of by the store, in one line and not one an event."""


@contextmanager
def logging_to(place: str | None) -> Iterator[RunLog]:
    """A log inside the block.

    Args:
        place: a file that lines are added to, `-` for standard error, where warnings of libraries become lines as well,
            or None for no log.

    Raises:
        FatalError: the file cannot be written.
    """
    if place is None:
        yield RunLog()
        return
    try:
        handler = logging.StreamHandler(sys.stderr) if place == STANDARD_ERROR else _file(place)
    except OSError as error:
        raise FatalError(f"--log {place}: cannot be written: {error.strerror or error}") from error
    handler.setFormatter(JsonLines())
    ours = logging.getLogger(_LOGGER)
    taken = [ours] if place != STANDARD_ERROR else [ours, logging.getLogger()]
    ours.setLevel(logging.INFO)
    for logger in taken:
        logger.addHandler(handler)
    logging.captureWarnings(place == STANDARD_ERROR)
    try:
        yield RunLog()
    finally:
        logging.captureWarnings(False)
        for logger in taken:
            logger.removeHandler(handler)
        with suppress(OSError):  # what could not be written before
            handler.close()


def _file(place: str) -> logging.Handler:
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    return _File(place, encoding="ascii")

"""Who is told of what happens in a run: its record, the display, the log."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from cluster.executor import Event
from jobs.interruption import Stop
from jobs.log import RunLog
from jobs.progress import Progress
from jobs.record import RunRecord

_LEVELS: Mapping[str, int] = {"failed": logging.ERROR, "stopped": logging.WARNING}


class Telling:
    """Hands on what happens.

    Attributes:
        progress: the display.
        log: the log.
        record: the record, with its tally.
    """

    def __init__(self, progress: Progress, log: RunLog, record: RunRecord, stop: Stop) -> None:
        self.progress, self.log, self.record, self._stop = progress, log, record, stop

    def watch(self, event: Event) -> None:
        """An event of the executor."""
        if event.kind != "stopping":
            self._stop.check()
        if event.kind == "started":
            self.record.started_units += 1
        if event.kind == "elsewhere":
            self.record.elsewhere += 1
        self.record.tally.take(event)
        if event.report is not None:
            self.record.note(event.report)
        self.progress.show(event)
        self.log.show(event)

    def say(self, text: str) -> None:
        """Something about the run as a whole."""
        self.progress.say(text)
        self.log.say("note", text)

    def ended(self, status: str, reason: str, **counts: int) -> None:
        """The run's end, for the log; the command says it to people."""
        text = f"{status}: {reason}" if reason else status
        seconds = round(self.record.seconds_since(), 3)
        self.log.say("ended", text, _LEVELS.get(status, logging.INFO), status=status, seconds=seconds, **counts)

"""Signals that ask a run to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jobs.cli import INTERRUPTED, STOPPED

_CODES = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: STOPPED}
_SHOW_CURSOR = "\x1b[?25h"


class StopRequested(BaseException):
    """The run was asked to stop by a signal other than Ctrl-C.

    Not an `Exception`, since it is raised wherever the process happens to be, also where a library catches those.
    """


class Stop:
    """What a signal has asked for."""

    def __init__(self) -> None:
        self._asked: type[BaseException] | None = None
        self._over = False

    def ask(self, number: int) -> None:
        """Stop for a signal, here and now."""
        if not self._over:
            self._asked = KeyboardInterrupt if number == signal.SIGINT else StopRequested
            raise self._asked

    def over(self) -> None:
        """What could be stopped has ended: a signal does nothing more."""
        self._over, self._asked = True, None

    def check(self) -> None:
        """Stop now, if what a signal raised got lost in code that passes over everything, as a finaliser does."""
        if self._asked is not None:
            raise self._asked


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Inside the block the first signal stops the run in order, and a second ends the process at once.

    The first Ctrl-C raises KeyboardInterrupt in the main thread, SIGTERM `StopRequested`. What follows, part of it
    in Ray's code, bears no further exception: the next signal of either kind says one line and exits. A signal that
    the process ignores stays ignored.
    """
    asked = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def stop(number: int, frame: Any) -> None:
        for each in before:
            signal.signal(each, end)
        asked.ask(number)

    def end(number: int, frame: Any) -> None:
        cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""
        os.write(2, f"{cursor}\nstopped at once; the same command goes on with what is committed\n".encode())
        os._exit(_CODES[signal.Signals(number)])

    before = {each: signal.getsignal(each) for each in _CODES if signal.getsignal(each) != signal.SIG_IGN}
    for each in before:
        signal.signal(each, stop)
    try:
        yield asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)

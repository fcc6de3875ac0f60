"""Whether anybody listens at a cluster's address."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from pipeline.errors import FatalError, RetryableError

SECONDS = 10.0
"""A system that is up answers at once, however busy it is."""

LOOK_EVERY = 5.0
"""Seconds between looks whether a cluster's head is there."""

SILENCE = 30.0
"""Seconds without an answer after which a job stops: Ray ends its process after 60, without a word."""


def check_listening(address: str) -> None:
    """Refuse an address at which nobody listens: Ray would try for minutes, and hear no Ctrl-C meanwhile.

    Args:
        address: HOST:PORT, or `auto`, which is what RAY_ADDRESS says. All else that Ray takes is left to it.

    Raises:
        FatalError: nobody listens there.
    """
    where = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    host, _, port = where.rpartition(":")
    if not host or "/" in where or not port.isdigit():
        return
    if trouble := _trouble(host, int(port), SECONDS):
        raise FatalError(
            f"Ray at {where} cannot be reached: nobody answers there ({trouble}); is the cluster up, and is this its "
            "head's address, HOST:PORT? (ray start prints it)"
        )


class Head:
    """The head of the cluster that a job runs on.

    Args:
        address: HOST:PORT of its control service.
        clock: seconds from any beginning on.

    Attributes:
        is_gone: whether it was given up.
    """

    def __init__(self, address: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._host, _, port = address.rpartition(":")
        self._port, self._clock = int(port), clock
        self._looked = clock()
        self._silent_since: float | None = None
        self.is_gone = False

    def check(self) -> None:
        """Look whether it is there, now and then.

        Raises:
            RetryableError: it has not been for so long that Ray will soon end this process.
        """
        if self._clock() - self._looked < LOOK_EVERY:
            return
        asked = self._clock()
        trouble, self._looked = _trouble(self._host, self._port, 1.0), self._clock()
        if not trouble:
            self._silent_since = None
            return
        # Of the time before, in which nobody asked (a suspended machine, a slow store), nothing is known.
        self._silent_since = asked if self._silent_since is None else self._silent_since
        if self._looked - self._silent_since > SILENCE:
            self.is_gone = True
            raise RetryableError(
                f"the head of the Ray cluster, {self._host}:{self._port}, has not answered for "
                f"{self._looked - self._silent_since:.0f} s ({trouble})"
            )


def _trouble(host: str, port: int, seconds: float) -> str:
    """Why nobody can be reached there; empty where somebody can."""
    try:
        socket.create_connection((host.strip("[]"), port), seconds).close()
    except (OSError, OverflowError) as error:
        return str(getattr(error, "strerror", None) or error)
    return ""

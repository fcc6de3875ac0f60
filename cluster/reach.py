"""Whether anybody listens at a cluster's address."""

from __future__ import annotations

import os
import socket

from pipeline.errors import FatalError

SECONDS = 10.0
"""A system that is up answers at once, however busy it is."""


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
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FatalError(
            f"Ray at {where} cannot be reached: nobody answers there ({reason}); is the cluster up, and is this its "
            "head's address, HOST:PORT? (ray start prints it)"
        ) from error

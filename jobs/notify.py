"""What a webhook is told after a run. Its address is a credential: it is put into no record, log, page or message."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from jobs.headline import headlines
from jobs.run import Result
from jobs.run_name import earlier_run
from pipeline.credential import without_credentials
from pipeline.errors import FatalError, RetryableError, ShardError
from pipeline.plain_text import plain_line
from pipeline.store import Output

OPTION = "--notify"
VARIABLE = "HEATLINE_WEBHOOK"
"""Environment variable with the address, for schedules."""

TIMEOUT = 10.0  # seconds for each of two tries
PAUSE = 2.0  # seconds between them


def check_address(address: str) -> None:
    """Refuse what cannot be a webhook before hours of work.

    Raises:
        FatalError: it is no http or https address; the address itself is not repeated.
    """
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username is not None or any(letter.isspace() for letter in address):
        raise FatalError(
            f"--notify or {VARIABLE}: expected an address such as https://host/path, without a user's name in it"
        )


def hide_address(address: str) -> None:
    """Take the address out of the environment that workers get, and off the command line.

    Ray keeps the command line of whoever connects, and its dashboard shows it. A process cannot change its own, so
    that one which has the address there starts over without, as the same process, with the address in `VARIABLE`.
    """
    os.environ.pop(VARIABLE, None)
    words = without_address(sys.orig_argv)
    if len(words) < len(sys.orig_argv):
        os.execve(sys.executable, words, {**os.environ, VARIABLE: address})


def without_address(words: Sequence[str]) -> list[str]:
    """A command's words without `--notify` and what belongs to it."""
    kept = []
    rest = iter(words)
    for word in rest:
        if word == OPTION:
            next(rest, None)
        elif not word.startswith(f"{OPTION}="):
            kept.append(word)
    return kept


def run_message(output: Output, result: Result) -> dict[str, Any]:
    """What is told of a run: status, counts, the best figures, regressions against the run before it.

    Args:
        output: where its record is.
        result: how it ended.
    """
    record, reason = output.run(result.run), plain_line(without_credentials(result.reason))
    against, regressions, compared = _regressions(output, result.run) if record["summary"] else (None, None, "")
    text = f"heatline {record['name']}: {result.status}"
    text += f" ({reason})" if reason else ""
    text += (
        f"; {result.done} units computed, {result.left} left, {len(result.lost)} lost, {result.failures} samples failed"
    )
    text += f"; {compared}" if compared else ""
    return {
        "format": 1,
        "text": text,
        "run": result.run,
        "name": record["name"],
        "status": result.status,
        "reason": reason,
        "output": output.uri,
        "page": output.place(result.page) if result.page else None,
        **{key: record.get(key) for key in ("started", "finished", "seconds", "samples")},
        "units": {"done": result.done, "left": result.left, "lost": len(result.lost), "stranded": result.stranded},
        "failures": result.failures,
        "headlines": [asdict(one) for one in headlines(record)],
        "compared_with": against,
        "regressions": regressions,
    }


def refusal_message(name: str, reason: str) -> dict[str, Any]:
    """What is told of a run that never began, maybe since its spec cannot be read.

    Args:
        name: the spec's, or its file's.
        reason: why.
    """
    reason = without_credentials(reason)
    text = f"heatline {name}: did not begin: {plain_line(' '.join(reason.split()))}"
    return {
        "format": 1,
        "text": text,
        "run": None,
        "name": name,
        "status": "refused",
        "reason": reason,
    }


def deliver(address: str, message: dict[str, Any]) -> str:
    """Post a message; try once more where that may help.

    Args:
        address: as `check_address` takes it.
        message: as JSON.

    Returns:
        Why it could not be delivered, without the address; empty where it was.
    """
    trouble, again = _post(address, message)
    if again:
        time.sleep(PAUSE)
        trouble, _ = _post(address, message)
    return trouble


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would turn the post into a read, and hand the message to somebody else."""

    def redirect_request(self, *_: Any) -> None:
        """None, which makes the answer an error."""


def _post(address: str, message: dict[str, Any]) -> tuple[str, bool]:
    """Why it failed, and whether another try may help; ("", False) where it did not."""
    headers = {"Content-Type": "application/json", "User-Agent": "heatline"}
    content = json.dumps(message).encode()
    try:
        request = urllib.request.Request(address, content, headers, method="POST")
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT):
            return "", False
    except urllib.error.HTTPError as error:
        error.close()
        return f"it answered with status {error.code}", error.code >= 500 or error.code == 429
    except (OSError, HTTPException, ValueError) as error:
        # The words of some of these repeat the address: only the system's own are passed on.
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, TimeoutError):
            return f"no answer within {TIMEOUT:g} seconds", True
        if isinstance(cause, socket.gaierror):
            return "its host is not known", True
        known = isinstance(cause, ConnectionError) and cause.strerror
        return (str(known).lower() if known else type(cause).__name__), True


def _regressions(output: Output, run: str) -> tuple[str | None, list[dict[str, Any]] | None, str]:
    """The run before, what got worse since, and both in words; (None, None, "") where no run came before.

    What got worse is None where no figure could be compared: that is not the same as nothing.
    """
    # A comparison comes with what draws pages, matplotlib too, which a run that tells nobody shall not wait for.
    from jobs.compare import compare, nothing_compared, open_run, regression_count  # noqa: PLC0415

    try:
        earlier = earlier_run(output, run)
        if earlier is None:
            return None, None, ""
        rerun, _ = compare(open_run(output, earlier), open_run(output, run))
    except (FatalError, RetryableError, ShardError):
        # A record or rows that cannot be read any more say nothing against this run.
        return None, None, ""
    if nothing := nothing_compared(rerun):
        return earlier, None, nothing
    aside = len(rerun.incomparable)
    text = regression_count(rerun) + (
        f", {aside} {'figure' if aside == 1 else 'figures'} not compared" if aside else ""
    )
    return earlier, [asdict(one) for one in rerun.regressions], text

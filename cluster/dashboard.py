"""The dashboard of a Ray cluster: its address, whether it answers and wants tokens, and what its refusals mean."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import requests
from ray.exceptions import AuthenticationError

from cluster.security import MODE, NO_TOKEN, WRONG_TOKEN, wants_tokens
from pipeline.errors import FatalError, RetryableError, one_line

ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Where an address is taken from that no option gives: of the dashboard, as Ray's own commands take it."""

_ANSWER_SECONDS = 10.0
_SYSTEM_SAYS = (
    *("Connection refused", "Connection reset", "No route to host", "Network is unreachable"),
    *("Name or service not known", "Temporary failure in name resolution", "certificate verify failed"),
)


def find_address(given: str | None) -> str:
    """The address of a cluster's dashboard, which has the Jobs API.

    Args:
        given: `http://HOST:PORT`, `https://…` or HOST:PORT; default: the environment's (`ADDRESS_VARIABLES`).

    Raises:
        FatalError: there is none, or it is another kind of address.
    """
    named = [(name, os.environ[name]) for name in ADDRESS_VARIABLES if os.environ.get(name)]
    if given is not None:
        named.insert(0, ("--address", given))
    if not named:
        raise FatalError(
            f"no address of a Ray cluster: give --address http://HOST:8265 or set {ADDRESS_VARIABLES[0]}; "
            "a cluster on this machine is started by ray start --head"
        )
    where, text = named[0]
    address = (text if "://" in text else f"http://{text}").rstrip("/")
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not (parts.port or "://" in text):
        raise FatalError(f"{where}: expected the dashboard's address, such as http://127.0.0.1:8265, got '{text}'")
    if parts.username is not None:
        raise FatalError(f"{where}: expected an address without a user or password in it; who may submit has the token")
    return address


def check_mode(address: str) -> None:
    """Whether the cluster and this process agree on tokens.

    Raises:
        FatalError: they do not, or there is no cluster.
    """
    tokens = _has_tokens(address)
    if tokens and not wants_tokens():
        raise FatalError(f"{address}: the cluster asks for a token, and {MODE}={os.environ[MODE]} sends none; unset it")
    if not tokens and wants_tokens():
        raise FatalError(
            f"{address}: the cluster runs without tokens: whoever reaches it can run anything on it. Start it with "
            f"{MODE}=token (and ray get-auth-token --generate), or set {MODE}=disabled to submit all the same"
        )


def _has_tokens(address: str) -> bool:
    """Whether the cluster asks for tokens.

    Raises:
        FatalError: there is no cluster.
    """
    try:
        answer = _get(f"{address}/api/authentication_mode")
        if answer.status_code == 404:
            # A version that knows no tokens does not know the question either.
            _get(f"{address}/api/version").json()["ray_version"]
            return False
        return str(answer.json()["authentication_mode"]) != "disabled"
    except (requests.JSONDecodeError, KeyError, TypeError) as error:
        raise FatalError(
            f"{address}: answers, and not as the dashboard of a Ray cluster; ray start prints its address"
        ) from error
    except requests.RequestException as error:
        raise FatalError(
            f"{address}: no Ray cluster answers there ({_cause(error)}); is it running, and is this the address of its "
            "dashboard? (a cluster elsewhere: kubectl port-forward, ssh -L)"
        ) from error


def _get(address: str) -> requests.Response:
    """As Ray's own client asks: through the same proxies, with the same certificates."""
    return requests.get(address, timeout=_ANSWER_SECONDS)


@contextmanager
def asking(address: str) -> Iterator[None]:
    """Turn what a request raises into our errors."""
    try:
        yield
    except AuthenticationError as error:
        # What the cluster said to a token; without one Ray asks nobody.
        wrong = "Authentication failed" in str(error)
        raise FatalError(f"{address}: {WRONG_TOKEN if wrong else NO_TOKEN}") from error
    except OSError as error:
        raise RetryableError(f"{address}: the cluster does not answer: {_cause(error)}") from error
    except RuntimeError as error:
        told = one_line(error)
        # Ray's client has one class for all answers: of a server in trouble, or of what stands before it, another
        # attempt may do.
        kind = RetryableError if re.match(r"Request failed with status code 5\d\d", told) else FatalError
        raise kind(f"{address}: {told}") from error


@contextmanager
def without_variables() -> Iterator[None]:
    """Ray prefers its variables to the address that it is given."""
    kept = {name: os.environ.pop(name) for name in ADDRESS_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _cause(error: BaseException) -> str:
    """What the system said, of what several libraries wrapped around it."""
    if isinstance(error, requests.Timeout):
        return f"no answer within {_ANSWER_SECONDS:g} s"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"it answers with status {error.response.status_code}"
    found = next((known for known in _SYSTEM_SAYS if known in str(error)), None)
    return found.lower() if found else type(error).__name__

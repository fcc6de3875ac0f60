"""Credentials in addresses: refused where one is given, and taken out of texts that somebody else wrote."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

from pipeline.errors import FatalError

HIDDEN = "…"

_SECRET = r"key|token|secret|signature|pass|pwd|auth|credential|sig"
_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s'\"]*@")
_BUCKETS = ("s3", "gs", "gcs")
# A secret key can hold a slash; a bucket's name holds no colon.
_KEYS = re.compile(r"\b((?:s3|gs|gcs)://)[^/\s'\"@]*:[^\s'\"]*@")
_PARAMETER = re.compile(rf"([?&;][^=&;\s]*(?:{_SECRET})[^=&;\s]*=)[^&;\s'\"]+", re.IGNORECASE)
_VARIABLE = re.compile(
    r"(^|_)([a-z0-9]*(key|token|secret|signature|password|passwd|passphrase|credential|webhook)s?|sig|pass|pwd|pat)(_|$)",
    re.IGNORECASE,
)
_FILE = re.compile(r".*_(file|path)|GOOGLE_APPLICATION_CREDENTIALS", re.IGNORECASE)
_ANONYMOUS = "anonymous"
"""The user of `gs://anonymous@bucket`, which says that there are no credentials."""


def refuse_credentials(address: str) -> None:
    """Refuse an address that holds credentials: it is kept in records, and shown on pages and in logs.

    Args:
        address: a path, or a URI such as `s3://bucket/prefix?region=eu-west-1`.

    Raises:
        FatalError: there is a user, a password or a key in it; the address is not repeated.
    """
    if "://" not in address:
        return
    scheme = address.partition("://")[0]
    try:
        parts = urlsplit(address)
        options = parse_qsl(parts.query, True)
        user = parts.netloc.rpartition("@")[0]
        # Of another address within it, such as an endpoint's.
        inner = [value for _, value in options if "@" in value]
    except ValueError as error:
        raise FatalError(f"{scheme}://{HIDDEN}: is no address: {error}") from error
    held = [name for name, _ in options if re.search(_SECRET, name, re.IGNORECASE)]
    keys = scheme in _BUCKETS and ":" in parts.netloc
    if held or inner or keys or user not in ("", _ANONYMOUS):
        what = f"'{held[0]}'" if held else "a user or a key"
        raise FatalError(
            f"{scheme}://{HIDDEN}: holds {what}, and addresses are kept in records and shown on pages; give "
            "credentials by the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "GOOGLE_APPLICATION_CREDENTIALS), a profile file or the machine's role"
        )


def without_credentials(text: str) -> str:
    """A text, such as a library's error, without the users, passwords, keys and signatures of addresses in it."""
    return _PARAMETER.sub(rf"\1{HIDDEN}", _USER.sub(rf"\1{HIDDEN}@", _KEYS.sub(rf"\1{HIDDEN}@", text)))


def holds_credential(variable: str, value: str) -> bool:
    """Whether an environment variable is a credential, by the words of its name or by an address in its value.

    One that says in which file credentials are, such as `AWS_WEB_IDENTITY_TOKEN_FILE`, is none itself.
    """
    if _VARIABLE.search(variable) and not (_FILE.fullmatch(variable) and value.startswith("/")):
        return True
    try:
        refuse_credentials(value)
    except FatalError:
        return True
    return False

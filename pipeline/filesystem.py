"""Where files lie, by path or URI, and what the errors of an object store mean."""

from __future__ import annotations

import os
import re
import time
from datetime import timedelta
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from pipeline.credential import refuse_credentials, without_credentials
from pipeline.errors import FatalError, RetryableError, one_line
from pipeline.suggestion import did_you_mean

ATTEMPTS = 11
"""Attempts at one call to S3: with the pauses between them, about half a minute of a store that does not answer."""

REGION_PAUSES = (1.0, 4.0, None)
"""Seconds between attempts to look up a bucket's region; each attempt itself takes some."""

GCS_SECONDS = 60
"""Seconds that a call to Google Cloud Storage is tried again for."""

_S3_OPTIONS = ("region", "scheme", "endpoint_override")
_GCS_OPTIONS = ("scheme", "endpoint_override", "retry_limit_seconds")

# What another attempt does not mend, with the names that the AWS SDK, S3 itself and Google's client give to it.
_ACCESS = "access is denied; look at the credentials and at what they allow"
_REGION = "the bucket is in another region; say ?region=… in the address"
_REFUSED = {
    "there is no such bucket": ("NO_SUCH_BUCKET", "NoSuchBucket", "NOT_FOUND"),
    _REGION: ("PERMANENT_REDIRECT", "PermanentRedirect", "AuthorizationHeaderMalformed", "HTTP status 301"),
    _ACCESS: ("ACCESS_DENIED", "AccessDenied", "PERMISSION_DENIED", "HTTP status 403"),
    "the store does not know the access key; look at the credentials": ("INVALID_ACCESS_KEY_ID", "InvalidAccessKeyId"),
    "the secret key is not the access key's; look at the credentials": (
        "SIGNATURE_DOES_NOT_MATCH",
        "SignatureDoesNotMatch",
    ),
    "there are no valid credentials": (
        "INVALID_CLIENT_TOKEN_ID",
        "InvalidToken",
        "MISSING_AUTHENTICATION_TOKEN",
        "UNAUTHENTICATED",
        "HTTP status 401",
    ),
    "the credentials have expired; renew them and run the same command again": ("ExpiredToken", "EXPIRED_TOKEN"),
    "the store refuses the name": ("INVALID_ARGUMENT", "InvalidBucketName"),
}
_MEANINGS = {name: meaning for meaning, names in _REFUSED.items() for name in names}
_REFUSAL = re.compile("|".join(rf"(?<![A-Za-z_]){re.escape(name)}(?![A-Za-z_])" for name in _MEANINGS))
_TOLD = 240  # characters of a library's own message


def open_filesystem(address: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a path or URI, and the path on it.

    S3 (`s3://bucket/prefix?region=…&endpoint_override=…&scheme=…`) and Google Cloud Storage (`gs://bucket/prefix`) try
    calls again that fail for a passing reason. Another server that speaks S3 is named by `endpoint_override` or by
    AWS_ENDPOINT_URL; credentials come from the environment, the profile files or the machine's role.

    Args:
        address: a path, or a URI that pyarrow knows.

    Returns:
        The file system, and the path without a closing `/`; a local one is absolute.

    Raises:
        FatalError: the address holds credentials, or is none, or there is no such bucket.
        RetryableError: nobody answers where its bucket's region is.
    """
    if "://" not in address:
        return pafs.LocalFileSystem(), Path(address).expanduser().absolute().as_posix()
    refuse_credentials(address)
    try:
        parts = urlsplit(address)
        if parts.scheme == "s3":
            return _s3(address, parts), _path(parts)
        if parts.scheme in ("gs", "gcs"):
            return _gcs(address, parts), _path(parts)
        filesystem, path = pafs.FileSystem.from_uri(address)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FatalError(f"{address}: cannot be opened: {_meaning(error) or _safe_line(error)}") from error
    return filesystem, path.rstrip("/")


def file_address(root: str, name: str) -> str:
    """Where a file under a root is, for people: `s3://bucket/prefix/name` of `s3://bucket/prefix?region=…`."""
    if "://" not in root:
        return f"{root.rstrip('/')}/{name}" if name else root
    base = without_options(root).rstrip("/")
    return f"{base}/{name}" if name else base


def without_options(address: str) -> str:
    """An address without `?region=…` and the like; a path stays as it is."""
    return address.partition("?")[0] if "://" in address else address


def store_error(place: str, error: BaseException) -> FatalError | RetryableError:
    """What an error of a file system means, in one line: whether another attempt may help.

    Args:
        place: the file or folder, for people.
        error: what pyarrow raised, after its own attempts.
    """
    if meaning := _meaning(error):
        return FatalError(f"{place}: {meaning}")
    return RetryableError(f"{place}: {_safe_line(error)}")


def _meaning(error: BaseException) -> str | None:
    """What a refusal of an object store means; None for what may pass."""
    found = _REFUSAL.search(str(error))
    return _MEANINGS[found[0]] if found else None


def _safe_line(error: BaseException) -> str:
    return without_credentials(one_line(error))[:_TOLD]


def _path(parts: SplitResult) -> str:
    return f"{_bucket(parts)}{unquote(parts.path)}".rstrip("/")


def _bucket(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _s3(address: str, parts: SplitResult) -> pafs.S3FileSystem:
    options = _options(address, parts, _S3_OPTIONS)
    endpoint = options.pop("endpoint_override", None)
    endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if "region" not in options and endpoint is None:
        options["region"] = _region(file_address(address, ""), _bucket(parts))
    return pafs.S3FileSystem(
        **options,
        endpoint_override=endpoint,
        # A file that fits into one request is one put, in place of the three calls of an upload in parts.
        allow_delayed_open=True,
        # The other strategy, called standard, has a quota: after a hundred further attempts in a process it makes none.
        retry_strategy=pafs.AwsDefaultS3RetryStrategy(max_attempts=ATTEMPTS - 1),
    )


def _region(place: str, bucket: str) -> str:
    """Where a bucket is, which anybody may ask."""
    for pause in REGION_PAUSES:
        try:
            return str(pafs.resolve_s3_region(bucket))
        except OSError as error:
            # What is no answer, such as a name server that does not know the store for a moment, says nothing of it.
            if _meaning(error) or "not found" in str(error).lower():
                raise
            if pause is None:
                raise RetryableError(f"{place}: its region cannot be looked up: {_safe_line(error)}") from error
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _gcs(address: str, parts: SplitResult) -> pafs.GcsFileSystem:
    options = _options(address, parts, _GCS_OPTIONS)
    seconds = float(options.pop("retry_limit_seconds", GCS_SECONDS))
    return pafs.GcsFileSystem(
        **options, anonymous=parts.netloc.startswith("anonymous@"), retry_time_limit=timedelta(seconds=seconds)
    )


def _options(address: str, parts: SplitResult, known: tuple[str, ...]) -> dict[str, str]:
    options = dict(parse_qsl(parts.query))
    if not _bucket(parts):
        raise FatalError(f"{address}: names no bucket; {parts.scheme}://BUCKET/FOLDER was expected")
    for name in options:
        if name not in known:
            where = file_address(address, "")
            raise FatalError(f"{where}: no option '{name}'{did_you_mean(name, known)}; known: {', '.join(known)}")
    return options

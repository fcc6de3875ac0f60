"""Who may speak to Ray: whoever has the cluster's token.

Source: Ray's documentation, "Ray token authentication". What differs: the mode is `token` unless `RAY_AUTH_MODE` says
otherwise, for running clusters as well, and a token that is made here is readable by its owner alone.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

from pipeline.errors import FatalError

MODE = "RAY_AUTH_MODE"
TOKEN = "RAY_AUTH_TOKEN"
TOKEN_FILE = "RAY_AUTH_TOKEN_PATH"
IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray for what it runs as a submitted job, in the mode of its cluster."""

NO_TOKEN = (
    f"it asks for a token and there is none here: put the cluster's into the file ~/.ray/auth_token (or one that "
    f"{TOKEN_FILE} names, or the variable {TOKEN}); for a cluster that runs without tokens say {MODE}=disabled"
)
WRONG_TOKEN = f"the token here is not the cluster's: see ~/.ray/auth_token, {TOKEN_FILE} and {TOKEN}"


def ask_for_tokens() -> None:
    """Have Ray ask for tokens and show them, unless `RAY_AUTH_MODE` is set.

    Ray reads the variable once, when it is imported; set later it would reach the processes that Ray starts and not
    this one. What runs inside a cluster (a job, a worker) goes by the cluster's mode.
    """
    if "ray" not in sys.modules and IN_A_JOB not in os.environ:
        os.environ.setdefault(MODE, "token")


def wants_tokens() -> bool:
    """Whether this process shows a token, and starts no Ray without one."""
    return os.environ.get(MODE, "token").lower() == "token"


def keep_token() -> None:
    """See that there is a token for a Ray that starts here, in a file of mode 0600.

    Ray makes one where there is none, readable by every user of the machine.

    Raises:
        FatalError: it cannot be written.
    """
    if not wants_tokens() or os.environ.get(TOKEN) or os.environ.get(TOKEN_FILE):
        return
    path = Path.home() / ".ray" / "auth_token"
    try:
        if not path.exists():
            _make(path)
        elif path.stat().st_uid == os.getuid() and path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise FatalError(
            f"{path}: Ray's token cannot be kept there: {error.strerror}; give one in {TOKEN} or {TOKEN_FILE}"
        ) from error


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.touch(mode=0o600)
    try:
        part.write_text(secrets.token_hex(32))
        # Of several that start at once the first one's holds, and is whole when it is seen.
        os.link(part, path)
    except FileExistsError:
        pass
    finally:
        part.unlink()

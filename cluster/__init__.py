"""Where work runs: executors and profiles. The only room that imports Ray."""

from __future__ import annotations

import os

from cluster.executor import Executor
from cluster.local import LocalExecutor
from cluster.profile import Profile
from cluster.security import ask_for_tokens

# Ray reads its mode when it is imported, which nothing in this room does before this.
ask_for_tokens()
# What raylets say of dead workers Ray prints on the standard output, where `--json` goes; the run tells of them itself.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")


def make_executor(profile: Profile) -> Executor:
    """The executor that a profile names."""
    if profile.executor == "local":
        return LocalExecutor(profile)
    # A job that finds everything committed never gets here, and shall not wait for Ray's import.
    from cluster.ray_executor import RayExecutor  # noqa: PLC0415

    return RayExecutor(profile)


__all__ = ["Executor", "LocalExecutor", "Profile", "make_executor"]

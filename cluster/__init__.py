"""Where work runs: executors and profiles. The only room that imports Ray."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cluster.security import ask_for_tokens

if TYPE_CHECKING:
    from cluster.executor import Executor
    from cluster.profile import Profile

# Ray reads its mode when it is imported, which nothing in this room does before this.
ask_for_tokens()
# What raylets say of dead workers Ray prints on the standard output, where `--json` goes; the run tells of them itself.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")


def make_executor(profile: Profile) -> Executor:
    """The executor that a profile names."""
    # What only asks a cluster shall not wait for PyTorch, nor a job that finds everything committed for Ray.
    if profile.executor == "local":
        from cluster.local import LocalExecutor  # noqa: PLC0415

        return LocalExecutor(profile)
    from cluster.ray_executor import RayExecutor  # noqa: PLC0415

    return RayExecutor(profile)

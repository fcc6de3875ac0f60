"""Where work runs: executors and profiles. The only room that imports Ray."""

from __future__ import annotations

from cluster.executor import Executor
from cluster.local import LocalExecutor
from cluster.profile import Profile
from cluster.ray_executor import RayExecutor


def make_executor(profile: Profile) -> Executor:
    """The executor that a profile names."""
    return LocalExecutor(profile) if profile.executor == "local" else RayExecutor(profile)


__all__ = ["Executor", "LocalExecutor", "Profile", "RayExecutor", "make_executor"]

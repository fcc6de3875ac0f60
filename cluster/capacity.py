"""What a cluster has room for, and the refusal of a profile that asks for more."""

from __future__ import annotations

import time

import ray
from ray._private.state import available_resources_per_node

from cluster.need import Need, said
from cluster.profile import Profile
from pipeline.errors import FatalError

# Resources of a job that has just ended come back within this time.
SETTLING_SECONDS = 5.0


def room(need: Need) -> int:
    """Workers that the nodes hold that are there now, whoever uses them."""
    return sum(need.fits(node["Resources"]) for node in ray.nodes() if node["Alive"])


def free_room(need: Need) -> int:
    """Workers that the nodes hold beside what others use of them; a worker needs all of its cores on one node."""
    return sum(map(need.fits, available_resources_per_node().values()))


def check_room(profile: Profile, least: int) -> None:
    """Whether a job can start without waiting.

    Args:
        profile: what a worker needs, and whether to wait.
        least: workers that the job starts with.

    Raises:
        FatalError: there is no room for them, and the profile does not say to wait.
    """
    if profile.wait_s:
        return
    need = Need.of(profile)
    held, until = room(need), time.monotonic() + SETTLING_SECONDS
    if held < least:
        raise FatalError(
            f"the profile asks for {_workers(least)} of {need}; the cluster has room for {held} ({_nodes()}: "
            f"{said(ray.cluster_resources())}). {_MEND}"
        )
    while (free := free_room(need)) < least:
        if time.monotonic() > until:
            raise FatalError(
                f"the profile asks for {_workers(least)} of {need}; of the cluster's {said(ray.cluster_resources())} "
                f"only {said(ray.available_resources())} are free, room for {free}. {_MEND}"
            )
        time.sleep(0.2)


_MEND = "Ask for fewer (workers) or smaller ones, or let the job wait for a cluster that grows (wait_s)"


def shortage(profile: Profile, least: int) -> str:
    """Why workers do not come, for people."""
    return (
        f"{_workers(least)} of {Need.of(profile)} needed; the cluster has {said(ray.cluster_resources())}, of which "
        f"{said(ray.available_resources())} free"
    )


def _workers(count: int) -> str:
    return f"{count} worker{'s' if count != 1 else ''}"


def _nodes() -> str:
    count = sum(node["Alive"] for node in ray.nodes())
    return f"{count} node{'s' if count != 1 else ''}"

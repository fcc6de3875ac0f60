"""Jobs on a running Ray cluster through Ray's Jobs API: submit, look up, follow, stop."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
from ray.job_submission import JobSubmissionClient
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException

from cluster.dashboard import asking, check_mode, without_variables
from cluster.parcel import Packed, Parcel, pack
from cluster.submission import OURS, Submission, submission
from pipeline.errors import FatalError, RetryableError
from pipeline.suggestion import did_you_mean

STOP_SECONDS = 60
"""What a job gets to write its record after it was told to stop; Ray's own 3 seconds are not enough for that."""

READY_SECONDS = 90.0
"""A cluster that has just been started takes no jobs until the agent of a node is up."""

_NOT_READY = "No available agent"
"""What Ray's dashboard says then."""

LOST_SECONDS = 60.0
"""For so long the cluster may not answer while a job is followed."""

QUIET_SECONDS = 60.0
"""After so long without a word of a job it is looked up whether it goes on."""

_LOST = (aiohttp.ClientError, OSError, RuntimeError, RetryableError)
"""What a lost connection raises; `OSError` takes in that time is up."""


class Jobs:
    """The jobs of one cluster.

    Args:
        address: as `find_address` returns it.

    Raises:
        FatalError: nobody answers there, or tokens do not fit.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        check_mode(address)
        for name in ("ray", *(kind.__module__ for kind in JobSubmissionClient.__mro__)):
            # Ray tells of each upload and each end of a connection; some of its loggers have levels of their own.
            logging.getLogger(name).setLevel(logging.ERROR)
        with asking(address), without_variables():
            self._client = JobSubmissionClient(address)

    def has_gpus(self) -> bool:
        """Whether a node of the cluster has a GPU now."""
        try:
            with without_variables():
                nodes = list_nodes(address=self.address, limit=10_000, filters=[("state", "=", "ALIVE")])
        except RayStateApiException as error:
            raise FatalError(f"{self.address}: does not tell its nodes; name a --profile: {error}") from error
        return any(node.resources_total.get("GPU", 0) > 0 for node in nodes)

    def all(self) -> list[Submission]:
        """Every job that heatline submitted and the cluster remembers, the oldest first."""
        return [one for one in self._everything() if one.name is not None]

    def find(self, identifier: str) -> Submission:
        """A job by its id.

        Raises:
            FatalError: there is none; with what was probably meant.
        """
        known = self._everything()
        for one in known:
            if one.id == identifier:
                return one
        names = [one.id for one in known]
        mend = did_you_mean(identifier, names) or (f"; known: {', '.join(names)}" if names else "; it knows of none")
        raise FatalError(f"{self.address}: no job '{identifier}'{mend}")

    def submit(self, parcel: Parcel, waiting: Callable[[str], object] = lambda line: None) -> tuple[Submission, bool]:
        """Submit a job, unless the very same is waiting or running already.

        Its id is the parcel's; each further attempt, after one that has ended, gets the next number (`-2`, `-3`).

        Args:
            parcel: the job.
            waiting: is told in one line that the cluster is not ready yet, as one is that has just been started.

        Returns:
            The job, and whether it was there before.

        Raises:
            RetryableError: the cluster does not answer, or does not get ready.
        """
        began, told = time.monotonic(), False
        while True:
            try:
                return self._submit(parcel)
            except RetryableError as error:
                if _NOT_READY not in str(error) or time.monotonic() - began > READY_SECONDS:
                    raise
            if not told:
                told = True
                waiting(f"{self.address}: the cluster takes no jobs yet: waiting up to {READY_SECONDS:g} s")
            time.sleep(1)

    def _submit(self, parcel: Parcel) -> tuple[Submission, bool]:
        while True:
            attempts = self._attempts(parcel.identifier)
            running = [one for one in attempts.values() if not one.has_ended]
            if running:
                return running[-1], True
            number = max(attempts, default=0) + 1
            identifier = parcel.identifier if number == 1 else f"{parcel.identifier}-{number}"
            with TemporaryDirectory(prefix="heatline-") as folder:
                if self._sent(parcel, pack(parcel, identifier, Path(folder)), identifier):
                    return self.find(identifier), False

    def _sent(self, parcel: Parcel, packed: Packed, identifier: str) -> bool:
        """Whether the job was taken; not where somebody else was quicker with the same id."""
        metadata = {"name": parcel.name, "output": parcel.output, "profile": parcel.profile}
        with asking(self.address):
            try:
                self._client.submit_job(
                    entrypoint=packed.entrypoint,
                    submission_id=identifier,
                    runtime_env={
                        "working_dir": str(packed.working_folder),
                        "py_modules": [str(room) for room in packed.rooms],
                        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)},
                    },
                    metadata={OURS: parcel.code, **metadata},
                )
            except RuntimeError as error:
                if "already exists" in str(error):
                    return False
                raise
        return True

    def logs(self, identifier: str) -> str:
        """What a job has printed so far, both of its streams."""
        with asking(self.address):
            return str(self._client.get_job_logs(identifier))

    def follow(self, identifier: str) -> Iterator[str]:
        """What a job prints, from its beginning to its end, in pieces as they come.

        Raises:
            RetryableError: the cluster did not answer for a minute, or has forgotten the job; it may go on.
        """
        shown, lost_since = 0, None
        with asyncio.Runner() as runner:
            while True:
                reached, broken = 0, False
                try:
                    for piece in _pieces(runner, self._client.tail_job_logs(identifier)):
                        reached += len(piece)
                        if reached > shown:
                            # After a lost connection it begins anew.
                            yield piece[len(piece) - (reached - shown) :]
                            shown = reached
                except _LOST:
                    # Lost, or silent for so long that it may be: the job's state tells.
                    broken = True
                try:
                    over, lost_since = self._is_over(identifier), None
                except RetryableError as error:
                    lost_since = time.monotonic() if lost_since is None else lost_since
                    if time.monotonic() - lost_since > LOST_SECONDS:
                        raise RetryableError(f"the connection was lost: {error}") from error
                    over = False
                if over and broken:
                    with suppress(FatalError, RetryableError):
                        yield self.logs(identifier)[shown:]
                if over:
                    return
                time.sleep(1)

    def _is_over(self, identifier: str) -> bool:
        """Whether a job that there was has ended."""
        for one in self._everything():
            if one.id == identifier:
                return one.has_ended
        raise RetryableError(f"the cluster knows of no job '{identifier}' any more; has it begun anew?")

    def stop(self, identifier: str) -> tuple[Submission, bool]:
        """Have a job stop, and wait until it has.

        Returns:
            The job, and whether it ran; one that had ended is left as it is.

        Raises:
            RetryableError: it has not ended in time.
        """
        if self.find(identifier).has_ended:
            return self.find(identifier), False
        with asking(self.address):
            self._client.stop_job(identifier)
        until = time.monotonic() + STOP_SECONDS + 20
        while time.monotonic() < until:
            with suppress(RetryableError):
                if (found := self.find(identifier)).has_ended:
                    return found, True
            time.sleep(0.5)
        raise RetryableError(f"{identifier}: was told to stop and has not ended yet; see heatline status")

    def _attempts(self, identifier: str) -> dict[int, Submission]:
        """The jobs of one parcel by number, in order."""
        found = {}
        for one in self._everything():
            match = re.fullmatch(rf"{re.escape(identifier)}(?:-([0-9]+))?", one.id)
            if match:
                found[int(match[1] or 1)] = one
        return dict(sorted(found.items()))

    def _everything(self) -> list[Submission]:
        with asking(self.address):
            found = [submission(one) for one in self._client.list_jobs() if one.submission_id]
        return sorted(found, key=lambda one: (one.submitted or datetime.min.replace(tzinfo=UTC), one.id))


def _pieces(runner: asyncio.Runner, tail: AsyncIterator[str]) -> Iterator[str]:
    """An asynchronous iterator's items, one at a time; Ctrl-C ends the waiting.

    Raises:
        TimeoutError: nothing came for a while.
    """

    async def following() -> str | None:
        return await asyncio.wait_for(anext(tail, None), QUIET_SECONDS)

    while (piece := runner.run(following())) is not None:
        yield piece

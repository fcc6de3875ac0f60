"""The executor on Ray: long-lived actors with a replica each, bounded units in flight."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from cluster.drive import drive
from cluster.executor import Event, Watch, nothing
from cluster.metrics import RunMetrics
from cluster.pool import ActorPool
from cluster.profile import Profile
from cluster.queue import UnitQueue
from cluster.reach import Head, check_listening
from cluster.security import NO_TOKEN, WRONG_TOKEN, keep_token
from cluster.training import TrainingPool, check_training_room
from pipeline.errors import FatalError, RetryableError, one_line
from pipeline.stages.variant import Job


class RayExecutor:
    """Actors on a Ray cluster, or on a Ray started here for the time of the job."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile

    def run(self, job: Job, queue: UnitQueue, watch: Watch, begin: Callable[[], None] = nothing) -> None:
        """See `Executor`."""
        try:
            self._run(job, queue, watch, begin)
        except SystemError as error:
            # What a signal's handler raised in the moment in which Ray had something to return (`ray.wait`).
            raise error.__cause__ or error from None

    def _run(self, job: Job, queue: UnitQueue, watch: Watch, begin: Callable[[], None]) -> None:
        profile = self._profile
        with _ray(profile):
            # Trainings that several devices share come after all else: they need devices that no actor holds.
            shared = profile.training_processes > 1 and queue.hold_cells()
            if shared:
                check_training_room(profile)
            watch, head = RunMetrics(job, queue).watching(watch), Head(ray.get_runtime_context().gcs_address)
            if len(queue):
                self._run_units(job, queue, watch, head, begin)
                begin = nothing
            if shared:
                queue.release_cells()
                begin()
                self._run_trainings(job, queue, watch, head)

    def _run_units(self, job: Job, queue: UnitQueue, watch: Watch, head: Head, begin: Callable[[], None]) -> None:
        profile = self._profile
        pool = ActorPool(job, profile, len(queue), head)
        try:
            pool.gather(queue.ready, lambda line: watch(Event("waiting", reason=line)))
            begin()
            with _telling_of_a_stop(watch):
                drive(pool, queue, watch, profile.in_flight, profile.retries, profile.hung_after_s)
        finally:
            pool.stop()

    def _run_trainings(self, job: Job, queue: UnitQueue, watch: Watch, head: Head) -> None:
        pool = TrainingPool(job, self._profile, head)
        try:
            with _telling_of_a_stop(watch):
                drive(pool, queue, watch, 1, self._profile.retries)
        finally:
            pool.stop()


def _unreachable(address: str | None, error: Exception) -> FatalError | RetryableError:
    """What it means that Ray cannot be reached, or does not start."""
    trouble = one_line(error)
    if address is None:
        # Of no narrower class where a node does not start in its time, as on a machine with much other work.
        return RetryableError(f"Ray does not start on this machine: {trouble}")
    refused = f"; or {WRONG_TOKEN}" if isinstance(error, ConnectionError) else ""
    return FatalError(f"Ray at {address} cannot be reached: {trouble}{refused}")


@contextlib.contextmanager
def _telling_of_a_stop(watch: Watch) -> Iterator[None]:
    try:
        yield
    except BaseException:
        watch(Event("stopping", reason="stopping: units in flight are left to the next run"))
        raise


@contextlib.contextmanager
def _hearing_sigterm() -> Iterator[None]:
    """Around Ray's start, in which Ray puts its own handler of SIGTERM into place: the caller's is told what came.

    Ray's prints a stack and raises SystemExit, which Python passes over where it happens to fork a process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler, came = signal.getsignal(signal.SIGTERM), False
    reader, writer = socket.socketpair()
    with reader, writer:
        for end in (reader, writer):
            end.setblocking(False)
        waking = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        except SystemExit:
            came = True
        finally:
            signal.set_wakeup_fd(waking)
            if getattr(signal.getsignal(signal.SIGTERM), "__module__", "").startswith("ray."):
                signal.signal(signal.SIGTERM, handler)
            with contextlib.suppress(BlockingIOError):
                came = came or signal.SIGTERM in reader.recv(4096)
    if came and callable(handler):
        handler(signal.SIGTERM, None)


@contextlib.contextmanager
def _ray(profile: Profile) -> Iterator[None]:
    """Ray, for the time of the block, from a clean working directory.

    A folder named `pipeline` or `cluster` in the working directory would be imported by workers in place of the
    program's own.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if ray.is_initialized():
        yield
        return
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="heatline-") as clean:
        # Workers inherit it, and start in another folder than the one that a relative path was meant from.
        kept = os.environ.get("PYTHONPATH")
        if kept:
            os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, kept.split(os.pathsep)))
        os.chdir(clean)
        try:
            local: dict[str, Any] = {
                "object_store_memory": profile.object_store_mb * 2**20,
                "include_dashboard": False,
            }
            if profile.address:
                check_listening(profile.address)
            else:
                keep_token()
            try:
                with _hearing_sigterm():
                    ray.init(
                        address=profile.address or "local",
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                        **({} if profile.address else local),
                    )
            except AuthenticationError as error:
                raise FatalError(f"Ray at {profile.address or 'this machine'}: {NO_TOKEN}") from error
            except Exception as error:
                raise _unreachable(profile.address, error) from error
            yield
        finally:
            ray.shutdown()
            os.chdir(before)
            if kept:
                os.environ["PYTHONPATH"] = kept

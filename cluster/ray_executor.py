"""The executor on Ray: long-lived actors with a replica each, bounded units in flight, restarts."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from cluster.actors import UnitActor
from cluster.code import code_digest, code_place
from cluster.executor import Attempt, Watch, drive
from cluster.memory import KEEP_FREED_MEMORY
from cluster.profile import Profile
from cluster.queue import UnitQueue
from pipeline.errors import FatalError, RetryableError
from pipeline.stages.variant import Job, Unit

START_SECONDS = 180.0


class RayExecutor:
    """Actors on a Ray cluster, or on a Ray started here for the time of the job."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile

    def run(self, job: Job, queue: UnitQueue, watch: Watch) -> None:
        """See `Executor`."""
        with _ray(self._profile):
            pool = _Actors(job, self._profile, len(queue))
            try:
                drive(pool, queue, watch, self._profile.in_flight, self._profile.retries)
            finally:
                pool.stop()


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
    before, on_stop = Path.cwd(), signal.getsignal(signal.SIGTERM)
    with tempfile.TemporaryDirectory(prefix="heatline-") as clean:
        os.chdir(clean)
        try:
            local: dict[str, Any] = {
                "object_store_memory": profile.object_store_mb * 2**20,
                "include_dashboard": False,
            }
            try:
                ray.init(
                    address=profile.address or "local",
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    **({} if profile.address else local),
                )
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise FatalError(f"Ray at {profile.address or 'this machine'} cannot be reached: {error}") from error
            if threading.current_thread() is threading.main_thread():
                # Ray has put its own handler, which prints a stack and exits; the caller's says how to go on.
                signal.signal(signal.SIGTERM, on_stop)
            yield
        finally:
            ray.shutdown()
            os.chdir(before)


class _Actors:
    """A fixed number of actors; Ray restarts those that die."""

    def __init__(self, job: Job, profile: Profile, units: int) -> None:
        count = min(_capacity(profile), max(units, 1))
        remote = ray.remote(UnitActor).options(
            num_cpus=profile.cpus_per_worker,
            num_gpus=profile.gpus_per_worker,
            max_restarts=-1,
            # A unit whose worker died is handed out again by the queue, which counts the attempts.
            max_task_retries=0,
            max_concurrency=profile.in_flight,
            runtime_env={"env_vars": dict(KEEP_FREED_MEMORY)},
        )
        self._actors = [remote.remote(job, profile.cpus_per_worker) for _ in range(count)]
        self._running: dict[Any, tuple[int, Unit]] = {}
        self._restarting: dict[Any, int] = {}
        self._greet()

    def _greet(self) -> None:
        """Wait for the actors, and refuse those that run other code."""
        try:
            answers = ray.get([actor.introduce.remote() for actor in self._actors], timeout=START_SECONDS)
        except ray.exceptions.GetTimeoutError as error:
            raise FatalError(
                f"the cluster gave no {len(self._actors)} workers within {START_SECONDS:.0f} s: it has "
                f"{_amounts(ray.available_resources())} free"
            ) from error
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, FatalError):
                raise cause from error
            raise FatalError(f"a worker did not start: {cause}") from error
        except RayActorError as error:
            raise FatalError(f"a worker did not start: {' '.join(str(error).split())[-300:]}") from error
        for digest, place in answers:
            _check_code(digest, place)

    def workers(self) -> Sequence[Hashable]:
        away = set(self._restarting.values())
        return [number for number in range(len(self._actors)) if number not in away]

    def start(self, worker: Hashable, unit: Unit) -> None:
        number = int(str(worker))
        self._running[self._actors[number].run.remote(unit)] = (number, unit)

    def wait(self) -> Iterable[Attempt]:
        done, _ = ray.wait([*self._running, *self._restarting], num_returns=1, timeout=1.0)
        for handle in done:
            if handle in self._restarting:
                number = self._restarting.pop(handle)
                try:
                    _check_code(*ray.get(handle))
                except RayTaskError as error:
                    raise FatalError(f"a worker did not start again: {error.cause}") from error
                except RayError:
                    self._await_restart(number)
                continue
            number, unit = self._running.pop(handle)
            try:
                yield Attempt(number, unit, ray.get(handle), None)
            except RayTaskError as error:
                yield Attempt(number, unit, None, error.cause)
            except RayActorError:
                self._await_restart(number)
                yield Attempt(number, unit, None, RetryableError("the worker died; Ray starts it again"))
            except RayError as error:
                yield Attempt(number, unit, None, RetryableError(" ".join(str(error).split())[:200]))

    def _await_restart(self, number: int) -> None:
        """Hand an actor no unit until it is back: calls to one that restarts fail at once."""
        if number not in self._restarting.values():
            call = self._actors[number].introduce.options(max_task_retries=-1).remote()
            self._restarting[call] = number

    def stop(self) -> None:
        """End the actors; units in flight are lost, and will be done by the next run."""
        for actor in self._actors:
            ray.kill(actor)


def _check_code(digest: str, place: str) -> None:
    if digest != code_digest() and place == code_place():
        raise FatalError(f"the program's files in {place} changed while it was starting; run the same command again")
    if digest != code_digest():
        raise FatalError(
            f"a worker imported another copy of the program: {place} there, {code_place()} here; "
            "install the same version on every node, and start from a folder without a 'pipeline' of its own"
        )


def _capacity(profile: Profile) -> int:
    """Workers to start: those that the profile asks for, else as many as the cluster's resources hold.

    Raises:
        FatalError: they do not fit, or not even one does.
    """
    have = ray.cluster_resources()
    fits = int(have.get("CPU", 0) / profile.cpus_per_worker)
    if profile.gpus_per_worker:
        fits = min(fits, int(have.get("GPU", 0) / profile.gpus_per_worker))
    if fits < 1:
        raise FatalError(
            f"the profile asks for {profile.cpus_per_worker:g} CPU and {profile.gpus_per_worker:g} GPU a worker, "
            f"the cluster has {_amounts(have)}"
        )
    if profile.workers is not None and profile.workers > fits:
        raise FatalError(f"the profile asks for {profile.workers} workers, the cluster's {_amounts(have)} hold {fits}")
    return profile.workers or fits


def _amounts(resources: dict[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} CPU and {resources.get('GPU', 0):g} GPU"

"""Actors that come and go: as many as there is work for, and as the cluster has room."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)

from cluster.actors import UnitActor
from cluster.attempt import Attempt, Order, WorkerDiedError, WorkerGoneError
from cluster.capacity import check_room, free_room, room, shortage
from cluster.code import code_digest, code_place
from cluster.memory import KEEP_FREED_MEMORY
from cluster.need import Need
from cluster.profile import Profile
from cluster.reach import Head
from pipeline.errors import FatalError, RetryableError
from pipeline.stages.variant import Job

START_SECONDS = 180.0  # an actor that has its resources is up by then
SLOW_SECONDS = 30.0  # most are up by then; of those that are not something is said
IDLE_SECONDS = 60.0  # workers without work for so long are given back
ROOM_SECONDS = 5.0  # between looks at how much the cluster holds
FALSE_STARTS = 3  # workers that die one after the other while they start
REST_SECONDS = 60.0  # at most, after a worker did not start, until another one is asked for

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class _Member:
    """A worker that is up."""

    actor: Any
    node: str


class ActorPool:
    """Workers on a Ray cluster.

    Actors are asked for as long as there is work for more of them; those that find no room stay pending, which makes
    Ray's autoscaler start nodes, and get work as soon as they are up. Ray restarts none: one that died, or left with
    its node, is replaced by another, which waits beside the work of the rest.
    """

    def __init__(self, job: Job, profile: Profile, units: int, head: Head) -> None:
        """Ask for the first workers.

        Args:
            job: what they need to know.
            profile: how many, on which resources.
            units: units of the job, at least one.
            head: of the cluster.

        Raises:
            FatalError: the cluster has no room for the least number of them, and the profile does not wait.
        """
        self._job = job
        self._profile = profile
        self._least = min(profile.least_workers, units)
        self._up: dict[int, _Member] = {}
        self._coming: dict[Any, tuple[int, Any]] = {}
        self._running: dict[Any, tuple[int, Order]] = {}
        self._fates: dict[int, Callable[[], RetryableError]] = {}
        self._numbers = 0
        self._false_starts = 0
        self._rest_until = float("-inf")
        self._trouble = ""
        self._head = head
        self._room = (float("-inf"), 0)
        self._surplus_since: float | None = None
        self._empty_since: float | None = time.monotonic()
        self._class = ray.remote(UnitActor).options(
            num_cpus=profile.cpus_per_worker,
            num_gpus=profile.gpus_per_worker,
            memory=Need.of(profile).memory or None,
            # An actor that Ray restarts would keep the work of the others waiting while no node has room for it.
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=profile.in_flight,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": dict(KEEP_FREED_MEMORY)},
        )
        check_room(profile, self._least)

    def gather(self, useful: int, waiting: Callable[[str], None]) -> None:
        """Wait until the least number of workers is up.

        Args:
            useful: workers that would have something to do.
            waiting: is told in one line what is waited for, where that takes longer than a start.

        Raises:
            FatalError: none can start.
            RetryableError: they do not come.
        """
        began = time.monotonic()
        quiet_until = SLOW_SECONDS
        if self._profile.wait_s and free_room(Need.of(self._profile)) < self._least:
            quiet_until = 0.0
        while len(self._up) < self._least:
            self.adapt(useful)
            for _ in self.wait():
                raise RuntimeError("nothing was handed out yet")
            waited = time.monotonic() - began
            if trouble := self.trouble():
                waiting(trouble)
            if waited > START_SECONDS + self._profile.wait_s:
                short = shortage(self._profile, self._least)
                raise RetryableError(f"workers did not come within {waited:.0f} s: {short}")
            if waited >= quiet_until:
                quiet_until = float("inf")
                most = START_SECONDS + self._profile.wait_s
                waiting(f"waiting up to {most:g} s for workers: {shortage(self._profile, self._least)}")

    def workers(self) -> Sequence[Hashable]:
        """See `Pool`."""
        return tuple(self._up)

    def asked(self) -> int:
        """See `Pool`."""
        return len(self._coming)

    def adapt(self, useful: int) -> None:
        """See `Pool`."""
        most = self._profile.most_workers or self._room_now()
        wanted, size = max(self._least, min(useful, most)), len(self._up) + len(self._coming)
        now = time.monotonic()
        for _ in range(wanted - size if now >= self._rest_until or not self._up else 0):
            self._ask()
        if size <= wanted:
            self._surplus_since = None
            return
        self._surplus_since = now if self._surplus_since is None else self._surplus_since
        # Not at once: the next stage of the job may have work for them, and to start one takes a while.
        if now - self._surplus_since >= IDLE_SECONDS:
            self._surplus_since = None
            self._give_back(size - wanted)

    def trouble(self) -> str:
        """See `Pool`."""
        told, self._trouble = self._trouble, ""
        return told

    def start(self, worker: Hashable, order: Order) -> None:
        """See `Pool`."""
        number = int(str(worker))
        self._running[self._up[number].actor.run.remote(order)] = (number, order)

    def wait(self) -> Iterable[Attempt]:
        """See `Pool`."""
        self._check_patience()
        self._head.check()
        if not (handles := [*self._running, *self._coming]):
            time.sleep(1.0)
            return
        done, _ = ray.wait(handles, num_returns=1, timeout=1.0)
        for handle in done:
            if handle in self._coming:
                self._welcome(handle)
                continue
            number, order = self._running.pop(handle)
            try:
                yield Attempt(number, order, ray.get(handle), None)
            except RayTaskError as error:
                yield Attempt(number, order, None, error.cause)
            except (RayActorError, OutOfMemoryError) as error:
                yield Attempt(number, order, None, self._fate(number, error))
            except RayError as error:
                yield Attempt(number, order, None, RetryableError(_last_line(error)))

    def end(self, worker: Hashable, reason: str) -> None:
        """See `Pool`."""
        number = int(str(worker))
        self._fates[number] = lambda: WorkerDiedError(reason)
        ray.kill(self._up.pop(number).actor)

    def stop(self) -> None:
        """End all workers; units in flight are lost, and will be done by the next run."""
        if self._head.is_gone:
            return  # nobody is there who could end them, and to ask would take longer than this process has to live
        for actor in [*(member.actor for member in self._up.values()), *(actor for _, actor in self._coming.values())]:
            ray.kill(actor)
        self._up, self._coming, self._running = {}, {}, {}

    def _ask(self) -> None:
        """Ask Ray for a worker; it is up when it has introduced itself."""
        actor = self._class.remote(self._job, self._profile.cpus_per_worker)
        self._coming[actor.introduce.remote()] = (self._numbers, actor)
        self._numbers += 1

    def _welcome(self, handle: Any) -> None:
        """A worker is up, or did not manage to be."""
        number, actor = self._coming.pop(handle)
        try:
            introduction = ray.get(handle)
        except RayTaskError as error:
            # Beside workers that are at work it is the node that lacks something, such as the mount of a folder.
            if isinstance(error.cause, FatalError) and not self._up:
                raise error.cause from error
            reason = " ".join(str(error.cause).split())
            self._note_false_start(reason, error, again=isinstance(error.cause, RetryableError))
            ray.kill(actor)
            return
        except RayError as error:
            if not isinstance(error, ActorUnavailableError):
                self._note_false_start(_last_line(error), error)
            ray.kill(actor)
            return
        _check_code(introduction.code, introduction.place)
        self._up[number] = _Member(actor, introduction.node)
        self._false_starts, self._empty_since = 0, None

    def _note_false_start(self, reason: str, error: RayError, *, again: bool = False) -> None:
        """A worker did not start: where there are others the job goes on, and asks again after a while.

        Args:
            reason: why, in one line.
            error: as Ray tells it.
            again: that the cause may pass.

        Raises:
            FatalError, RetryableError: no worker is up, and the next one will not start either.
        """
        self._false_starts += 1
        hopeless = isinstance(error, RayActorError) and error.actor_init_failed
        if not self._up and (hopeless or self._false_starts > FALSE_STARTS):
            raise (RetryableError if again else FatalError)(f"workers do not start: {reason}") from error
        self._trouble = f"a worker did not start: {reason}"
        if self._up:
            self._rest_until = time.monotonic() + min(REST_SECONDS, 2.0**self._false_starts)

    def _fate(self, number: int, error: RayError) -> RetryableError:
        """What a worker's end was; the same for each of its units."""
        if (member := self._up.pop(number, None)) is not None:
            self._fates[number] = _fate_of(member, error)
            if isinstance(error, ActorUnavailableError):
                # Should it come back: another has its work by then.
                ray.kill(member.actor)
        return self._fates[number]()

    def _give_back(self, count: int) -> None:
        """Give up workers that are not there yet, then idle ones, from the nodes that hold the fewest."""
        for handle, (_, actor) in list(self._coming.items())[::-1][:count]:
            del self._coming[handle]
            ray.kill(actor)
            count -= 1
        busy = {number for number, _ in self._running.values()}
        on_node = Counter(member.node for member in self._up.values())
        idle = [number for number in self._up if number not in busy]
        for number in sorted(idle, key=lambda one: on_node[self._up[one].node])[:count]:
            ray.kill(self._up.pop(number).actor)

    def _room_now(self) -> int:
        """Workers that the cluster holds, looked up now and then."""
        now = time.monotonic()
        if now - self._room[0] > ROOM_SECONDS:
            self._room = (now, room(Need.of(self._profile)))
        return self._room[1]

    def _check_patience(self) -> None:
        """Without any worker a job waits only so long for one."""
        if self._up:
            self._empty_since = None
            return
        now = time.monotonic()
        self._empty_since = now if self._empty_since is None else self._empty_since
        if now - self._empty_since > START_SECONDS + self._profile.wait_s:
            waited = f"no worker is left, and none came within {now - self._empty_since:.0f} s"
            raise RetryableError(f"{waited}: {shortage(self._profile, 1)}")


def _fate_of(member: _Member, error: RayError) -> Callable[[], RetryableError]:
    """How a worker ended, as an error for each unit that it had."""
    if isinstance(error, OutOfMemoryError):
        return lambda: WorkerDiedError(
            "Ray ended its worker, since the node's memory was nearly full (fewer workers, memory_mb_per_worker or a "
            "smaller cache_mb help)",
            out_of_memory=True,
        )
    if isinstance(error, ActorUnavailableError):
        return lambda: WorkerGoneError("its worker cannot be reached")
    preempted = isinstance(error, ActorDiedError) and error.preempted
    if preempted or not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == member.node):
        return lambda: WorkerGoneError("its worker's node left the cluster")
    return lambda: WorkerDiedError("its worker died: it crashed or was killed")


def _check_code(digest: str, place: str) -> None:
    if digest != code_digest() and place == code_place():
        raise FatalError(f"the program's files in {place} changed while it was starting; run the same command again")
    if digest != code_digest():
        raise FatalError(
            f"a worker imported another copy of the program: {place} there, {code_place()} here; "
            "install the same version on every node, and start from a folder without a 'pipeline' of its own"
        )


def _last_line(error: BaseException) -> str:
    """What an error of Ray comes down to: it quotes a traceback, coloured, whose last line says what was raised."""
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__

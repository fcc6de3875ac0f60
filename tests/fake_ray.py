"""As much of Ray as a pool of workers uses, in this process, with time and nodes in the test's hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import ActorDiedError

from cluster.actors import Introduction
from cluster.code import code_digest, code_place


@dataclass(eq=False)
class Call:
    """A call of an actor's method, its own handle; `answer` is what it returns, or raises."""

    actor: Actor
    arguments: tuple[Any, ...]
    answer: Any = None
    ended: bool = False

    def end(self, answer: Any) -> None:
        """The call is over."""
        self.answer, self.ended = answer, True


@dataclass(eq=False)
class _Method:
    actor: Actor
    calls: list[Call] = field(default_factory=list)

    def remote(self, *arguments: Any) -> Call:
        self.calls.append(Call(self.actor, arguments))
        return self.calls[-1]


class Actor:
    """An actor with the methods that the pool calls; `killed` by the pool or not."""

    def __init__(self) -> None:
        self.introduce, self.run = _Method(self), _Method(self)
        self.killed = False

    def come_up(self, node: str) -> None:
        """Ray has found room for it on a node."""
        self.introduce.calls[0].end(Introduction(code_digest(), code_place(), node))

    def die(self, error: Exception) -> None:
        """Every call that has not ended ends with an error."""
        for call in (*self.introduce.calls, *self.run.calls):
            if not call.ended:
                call.end(error)


class FakeHead:
    """In the place of `cluster.reach.Head`; `silent` is what it says where it has gone."""

    def __init__(self) -> None:
        self.silent: Exception | None = None

    @property
    def is_gone(self) -> bool:
        return self.silent is not None

    def check(self) -> None:
        if self.silent is not None:
            raise self.silent


class FakeRay:
    """In the place of the module `ray`, and of `time`.

    Attributes:
        actors: every one that was asked for.
        alive: names of the nodes, each with the resources `each`.
        now: seconds.
        free: what is free of a node, where that is not all.
    """

    def __init__(self, *alive: str, **each: float) -> None:
        self.alive, self.each = list(alive), each
        self.actors: list[Actor] = []
        self.options_given: dict[str, Any] = {}
        self.now = 0.0
        self.free: dict[str, dict[str, float]] = {}

    def remote(self, actor_class: type) -> FakeRay:
        return self

    def options(self, **given: Any) -> Any:
        self.options_given = given
        outer = self

        class Factory:
            @staticmethod
            def remote(*arguments: Any) -> Actor:
                outer.actors.append(Actor())
                return outer.actors[-1]

        return Factory()

    def kill(self, actor: Actor) -> None:
        actor.killed = True
        actor.die(ActorDiedError())

    def wait(self, handles: Sequence[Call], *, num_returns: int, timeout: float) -> tuple[list[Call], list[Call]]:
        done = [handle for handle in handles if handle.ended][:num_returns]
        self.now += 0.0 if done else timeout
        return done, [handle for handle in handles if handle not in done]

    def get(self, handle: Call) -> Any:
        if isinstance(handle.answer, Exception):
            raise handle.answer
        return handle.answer

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": name, "Alive": True, "Resources": self.each} for name in self.alive]

    def cluster_resources(self) -> dict[str, float]:
        return {name: amount * len(self.alive) for name, amount in self.each.items()}

    available_resources = cluster_resources

    def available_resources_per_node(self) -> dict[str, dict[str, float]]:
        return {name: self.free.get(name, self.each) for name in self.alive}

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

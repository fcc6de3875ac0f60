"""Jobs that are killed at random moments until they are done."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import psutil
from fault_laboratory import Form, Laboratory, expect
from fault_output import LogLine, Range, computed_twice, in_flight, markers
from fault_run import Command

from jobs.cli import OK

Kind = Literal["driver", "actor", "raylet", "supervisor"]

CHANCES: dict[Form, dict[Kind, float]] = {
    "cluster": {"driver": 0.4, "actor": 0.5, "raylet": 0.1},
    "submitted": {"supervisor": 0.4, "actor": 0.5, "raylet": 0.1},
    "alone": {"driver": 1.0},
}
NAMES: dict[tuple[Form, Kind], str] = {
    ("cluster", "driver"): "SIGKILL of the driver",
    ("alone", "driver"): "SIGKILL of the driver, the job in its own process",
    ("submitted", "supervisor"): "SIGKILL of the supervisor of a submitted job",
    ("cluster", "actor"): "SIGKILL of an actor",
    ("submitted", "actor"): "SIGKILL of an actor",
    ("cluster", "raylet"): "SIGKILL of a node's raylet, another node joins",
    ("submitted", "raylet"): "SIGKILL of a node's raylet, another node joins",
}
ENDING = ("driver", "supervisor")
EARLY = 1 / 6
"""Share of the kills that fall in a command's start."""


@dataclass
class Kill:
    """One kill.

    Attributes:
        kind: of what.
        at: when, in seconds since the epoch.
        lost: units in flight that were lost with it.
        seconds: see `fault_finding.Found`; None where nothing was left to be done.
    """

    kind: Kind
    at: float
    lost: set[Range] = field(default_factory=set)
    seconds: float | None = None


class KilledJob:
    """A job that is killed until it is done.

    Attributes:
        kills: what was done to it.
        again: committed units that were computed again.
    """

    def __init__(self, laboratory: Laboratory, name: str, form: Form, draws: np.random.Generator) -> None:
        self._laboratory = laboratory
        self._form = form
        self._draws = draws
        self._spec = laboratory.spec(name)
        self._output = laboratory.output(name)
        self._seen: dict[str, int] = {}
        self.kills: list[Kill] = []
        self.again: set[str] = set()

    def run(self, most: int) -> None:
        """Run it to its end, with so many kills at most."""
        first = len(self._laboratory.lines())
        while True:
            before, begun = len(self._laboratory.lines()), set(self._seen)
            command = self._laboratory.start(self._spec, self._form)
            ended_by = self._kill_while_running(command, most)
            if ended_by is None:
                expect(command, OK)
            else:
                command.end()
            self._look()
            self._note_resumption(command, begun)
            if ended_by is None:
                break
            ended_by.lost = in_flight(self._laboratory.lines(before), self._seen)
        self._note_survived(self._laboratory.lines(first))
        self.again |= {str(unit) for unit in computed_twice(self._laboratory.lines(first))}

    def _kill_while_running(self, command: Command, most: int) -> Kill | None:
        """Kill until a kill ends the command; None where it ends by itself, or is left to."""
        kinds, chances = zip(*CHANCES[self._form].items(), strict=True)
        while len(self.kills) < most and self._await_moment(command):
            kind = kinds[int(self._draws.choice(len(kinds), p=chances))]
            now = time.time()
            if self._kill(command, kind):
                self.kills.append(Kill(kind, now))
                if kind in ENDING:
                    return self.kills[-1]
        return None

    def _await_moment(self, command: Command) -> bool:
        """Wait for a random moment, in the start or after some further units; False where the command ended before."""
        if self._draws.random() < EARLY:
            moment = time.time() + float(self._draws.uniform(0, 5))
            return command.wait_until(lambda: time.time() > moment) and command.running
        count = len(markers(self._output)) + int(self._draws.integers(1, 40))
        if not command.wait_for_units(self._output, count):
            return False
        time.sleep(float(self._draws.uniform(0, 0.3)))
        return command.running

    def _kill(self, command: Command, kind: Kind) -> bool:
        """False where there is no such process yet, or no more."""
        cluster = self._laboratory.cluster
        if kind == "driver":
            command.kill()
            return True
        if kind == "raylet":
            cluster.kill_second()
            cluster.join()
            return True
        processes = cluster.actors() if kind == "actor" else cluster.supervisors()
        if not processes:
            return False
        try:
            processes[int(self._draws.integers(len(processes)))].kill()
        except psutil.NoSuchProcess:
            return False
        return True

    def _look(self) -> None:
        """Note which units are committed, and which of those noted before were written once more."""
        now = markers(self._output)
        self.again |= {name for name, written in self._seen.items() if now.get(name) != written}
        self._seen = now

    def _note_resumption(self, command: Command, begun: set[str]) -> None:
        """How long the last kill held the job up, if this is the command that was given after it."""
        written = [at / 1e9 for name, at in self._seen.items() if name not in begun and at / 1e9 > command.began]
        for kill in self.kills:
            if kill.kind in ENDING and kill.seconds is None and kill.at < command.began and written:
                kill.seconds = min(written) - command.began

    def _note_survived(self, lines: list[LogLine]) -> None:
        """What was lost with what the run survived, until when."""
        ends = [kill.at for kill in self.kills[1:]] + [float("inf")]
        for kill, end in zip(self.kills, ends, strict=True):
            if kill.kind not in ENDING:
                died = [line for line in lines if line.event in ("again", "split") and kill.at <= line.seconds < end]
                kill.lost = {line.unit for line in died}
                written = [self._written(unit) for unit in kill.lost]
                kill.seconds = max(written) - kill.at if written else None

    def _written(self, unit: Range) -> float:
        """When the last of a unit's positions was committed."""
        variant, start, stop = unit
        found = 0.0
        for name, at in self._seen.items():
            folder, _, file = name.rpartition("/_committed/")
            if folder == variant and int(file[:9]) < stop and int(file[10:19]) > start:
                found = max(found, at / 1e9)
        return found

"""How far the runs of an output are, read from the output alone: no Ray and no process is asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import FatalError
from pipeline.record_shape import read_time
from pipeline.store import Output, open_output

EVERY = 10.0
"""Seconds between two signs of life of a run."""

SILENT = 60.0
"""Seconds without one after which a run counts as killed or standing still."""

ENDED = ("done", "failed", "stopped")


@dataclass(frozen=True, slots=True)
class StageProgress:
    """One stage of a run.

    Attributes:
        stage: its name.
        units: units that the job has in it.
        reused: those of them that others committed: runs before this one, or beside it.
        done: those that this run committed.
        lost: those that were given up.
        samples: samples of the units that this run committed.
        failures: those of them that failed.
        again: attempts at units that failed and were followed by another.
        samples_per_second: over the last minute, at most; None where none was computed in it, or the run has ended.
    """

    stage: str
    units: int
    reused: int = 0
    done: int = 0
    lost: int = 0
    samples: int = 0
    failures: int = 0
    again: int = 0
    samples_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How far a run is.

    Attributes:
        output: where it is, as a path or URI.
        run: name of its record.
        name: the spec's name.
        status: `running`; `silent`: it did not end, and gave no sign of life for `SILENT` seconds; `done`, `failed`,
            `stopped`.
        started: when it began, ISO 8601, UTC.
        updated: its last sign of life, or its end.
        seconds: from the one to the other.
        left_seconds: the time that it will take yet, at most; None where it is not known, or the run has ended.
        reason: why it stopped, in one line; empty where it did not, or the record does not tell.
        stages: its stages, in the order of the pipeline; empty in records of versions that did not note them.
    """

    output: str
    run: str
    name: str
    status: str
    started: str
    updated: str
    seconds: float
    left_seconds: float | None = None
    reason: str = ""
    stages: tuple[StageProgress, ...] = ()

    @property
    def going_on(self) -> bool:
        """Whether the run is alive."""
        return self.status == "running"

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with the totals of the stages."""
        counts = ("units", "reused", "done", "lost", "samples", "failures", "again")
        totals = {name: sum(getattr(stage, name) for stage in self.stages) for name in counts}
        return {**asdict(self), **totals, "stages": [asdict(stage) for stage in self.stages]}


def progress_of(output: str | Output, run: str | None = None, *, now: datetime | None = None) -> RunProgress:
    """How far a run is: one listing and two small reads, on a disk or an object store.

    Args:
        output: a folder or a URI such as `s3://bucket/prefix`, or an output that is open.
        run: one of its runs; default: the latest.
        now: the time that signs of life are held against; default: the clock's.

    Raises:
        FatalError: there is no such output, or no such run in it.
    """
    opened = output if isinstance(output, Output) else open_output(output)
    record = opened.run(run)
    return _progress(opened, record, _sign_of_life(opened, str(record["run"])), now or datetime.now(UTC))


def current_runs(
    output: str | Output, *, now: datetime | None = None, left_out: Callable[[str], object] | None = None
) -> list[RunProgress]:
    """The runs that somebody who asks for an output's state wants to see: those that are alive, else the latest.

    Several can be alive, which share the work; the oldest comes first.

    Args:
        output: as for `progress_of`.
        now: likewise.
        left_out: is told why a record cannot be read, and the other runs are told; default: it is an error.

    Raises:
        FatalError: there is no such output, or no run in it.
    """
    opened = output if isinstance(output, Output) else open_output(output)
    names = opened.runs()
    if not names:
        raise FatalError(f"{opened.uri}: no run yet")
    signs = [name.removesuffix(SUFFIX) for name, _ in opened.list("runs") if name.endswith(SUFFIX)]
    alive = [name for name in signs if name in names]

    def progress(wanted: Iterable[str]) -> Iterator[RunProgress]:
        for record in opened.records(wanted, left_out):
            yield _progress(opened, record, _sign_of_life(opened, str(record["run"])), now or datetime.now(UTC))

    if found := [one for one in progress(alive) if one.going_on]:
        return found
    latest = next(progress(reversed(names)), None)
    if latest is None:
        raise FatalError(f"{opened.uri}: no run whose record can be read")
    return [latest]


SUFFIX = ".progress"
"""Ending of the small file beside a run's record that is rewritten while the run goes on."""


def progress_file(run: str) -> str:
    """Name of a run's sign of life under the output."""
    return f"runs/{run}{SUFFIX}"


def sign_of_life(stages: tuple[StageProgress, ...], left_seconds: float | None) -> bytes:
    """What that file holds: the time, and how far the run is."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    content = {
        "format": 1,
        "updated": now,
        "left_seconds": left_seconds,
        "stages": [asdict(stage) for stage in stages],
    }
    return json.dumps(content).encode()


def _sign_of_life(output: Output, run: str) -> Mapping[str, Any]:
    """The last sign of life of a run; empty where there is none."""
    try:
        found = json.loads(output.read_bytes(progress_file(run)))
        read_time(found["updated"])
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return {}
    return dict(found)


def _progress(output: Output, record: Mapping[str, Any], sign: Mapping[str, Any], now: datetime) -> RunProgress:
    status, started = str(record["status"]), str(record["started"])
    ended = status in ENDED
    known = record if ended else {**record, **sign}
    updated = str((record.get("finished") if ended else sign.get("updated")) or started)
    began, last = read_time(started), read_time(updated)
    if not ended:
        status = "silent" if (now - last).total_seconds() > SILENT else "running"
    found = RunProgress(
        output=output.uri,
        run=str(record["run"]),
        name=str(record["name"]),
        status=status,
        started=started,
        updated=updated,
        seconds=float(record["seconds"]) if ended else max(0.0, (last - began).total_seconds()),
        left_seconds=known.get("left_seconds") if status == "running" else None,
        reason=str(record.get("reason") or "") if ended else "",
        stages=tuple(_stage(stage) for stage in known.get("stages") or ()),
    )
    if found.going_on:
        return found
    return replace(found, stages=tuple(replace(stage, samples_per_second=None) for stage in found.stages))


def _stage(found: Mapping[str, Any]) -> StageProgress:
    """What a newer version may have noted besides is left out."""
    return StageProgress(**{one.name: found[one.name] for one in fields(StageProgress) if one.name in found})

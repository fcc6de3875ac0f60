"""A submitted job as its cluster knows it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from ray.job_submission import JobDetails, JobStatus

OURS = "heatline"
"""The key in a job's metadata that says whose it is."""

DONE, FAILED, MISTAKE, STOPPED = 0, 1, 2, 3
"""Exit codes of `heatline run`."""

State = Literal["waiting", "running", "done", "failed", "stopped"]

_LONGEST_REASON = 300


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that was submitted, as Ray knows it.

    Attributes:
        id: its submission id.
        state: `waiting` until it begins, `running`; `done`, `failed` (its exit code says how), `stopped`: by
            `Jobs.stop`, by a signal, or with what it ran on: submitted again, it goes on.
        name: the spec's name; None where it is a job of somebody else's.
        output: the spec's output, likewise.
        profile: the profile's name, likewise.
        submitted: when.
        ended: when, if it has.
        exit_code: as of `heatline run`, if it has ended: 0 to 3.
        reason: why it ended, where Ray knows more than the job's log.
    """

    id: str
    state: State
    name: str | None
    output: str | None
    profile: str | None
    submitted: datetime | None
    ended: datetime | None
    exit_code: int | None
    reason: str | None

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it runs or will run."""
        return self.exit_code is not None


def submission(details: JobDetails) -> Submission:
    """What Ray tells of a job, in our words."""
    metadata = details.metadata or {}
    ours = OURS in metadata
    state, code = _outcome(details)
    # What the log says as well is left to the log, and what the state says to the state.
    told = details.driver_exit_code is not None or details.status == JobStatus.STOPPED or not details.message
    return Submission(
        id=str(details.submission_id),
        state=state,
        name=metadata.get("name") if ours else None,
        output=metadata.get("output") if ours else None,
        profile=metadata.get("profile") if ours else None,
        submitted=_time(details.start_time),
        ended=_time(details.end_time),
        exit_code=code,
        reason=None if told or code in (None, DONE) else _line(details.message),
    )


def _outcome(details: JobDetails) -> tuple[State, int | None]:
    """State and exit code. A job that did not end of itself has stopped: submitted again, it goes on."""
    match details.status:
        case JobStatus.PENDING:
            return "waiting", None
        case JobStatus.RUNNING:
            return "running", None
        case JobStatus.SUCCEEDED:
            return "done", DONE
        case JobStatus.FAILED if details.driver_exit_code in (FAILED, MISTAKE):
            return "failed", details.driver_exit_code
        case _:
            return "stopped", STOPPED


def _time(milliseconds: int | None) -> datetime | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, UTC)


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]} …"

"""What a run's record has to hold, so that who reads one finds what it looks for."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

DEFAULT = "default"
"""In a spec's `compare.tolerance`, and so in records: all metrics without a tolerance of their own."""


def record_trouble(found: object) -> str | None:
    """The key by which something is not the record of a run; None where it is one.

    Args:
        found: what the file holds, read as JSON.
    """
    try:
        _Record.model_validate(found)
    except ValidationError as error:
        return ".".join(str(part) for part in error.errors()[0]["loc"]) or "no mapping"
    return None


def read_time(text: str) -> datetime:
    """A time as records hold it.

    Raises:
        ValueError: it is none in ISO form, or has no zone.
    """
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"{text}: a time without its zone")
    return found


def _time(text: str) -> str:
    read_time(text)
    return text


_Time = Annotated[str, AfterValidator(_time)]


class _Keys(BaseModel):
    """Keys that are read without another look; there may be others."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Program(_Keys):
    name: str


class _Named(_Keys):
    id: str
    config: _Program


class _Compare(_Keys):
    tolerance: dict[str, float] | None = None


class _Spec(_Keys):
    methods: list[_Named] | None = None
    metrics: list[_Named] | None = None
    compare: _Compare | None = None


class _Units(_Keys):
    done: int = 0
    reused: int = 0


class _Stage(_Keys):
    stage: str
    units: int


class _Timing(_Keys):
    seconds: float
    samples: int


class _Variant(_Keys):
    path: str
    stage: str
    model: str | None = None
    method: str | None = None
    metric: str | None = None


class _Figure(_Keys):
    model: str
    method: str
    metric: str
    measure: str
    higher_is_better: bool
    mean: float | None
    low: float | None
    high: float | None


class _Record(_Keys):
    name: str
    status: str
    started: _Time
    finished: _Time | None = None
    same_as: str | None = None
    reason: str = ""
    seconds: float = 0.0
    samples: int = 0
    failures: int = 0
    spec: _Spec = _Spec()
    units: _Units = _Units()
    lost: list[dict[str, Any]] = []
    stages: list[_Stage] = []
    timings: list[_Timing] = []
    variants: list[_Variant] = []
    summary: list[_Figure] = []


def blank_record() -> dict[str, Any]:
    """What a record is taken to say where it leaves a key out, as one of an earlier version may."""
    bare = _Record(name="", status="", started="2000-01-01T00:00:00+00:00")
    return {**bare.model_dump(include=_FILLED), "spec": {}, "units": {}}


_FILLED = {"seconds", "samples", "failures", "lost", "stages", "timings", "variants", "summary"}

"""The record of a run as the report reads it: what is missing in an old or unfinished one has a default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import FatalError
from pipeline.stages.summarise import Summary
from pipeline.store import Output

CONTROL = "random"
"""Name of the method that knows nothing of image or model."""

EXPLAINED = "explained"
"""The split that a run is about; what it finds out about images to train on is no result of it."""


class _Lenient(BaseModel):
    """Keys that this version does not know are left out, so that a newer record can still be shown."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class RetrainCell(_Lenient):
    """One training of a remove-and-retrain benchmark, as `pipeline.retrain.config.Cell`."""

    kind: str
    fill: str
    network: str
    method: str | None = None
    fraction: float
    repeat: int


class VariantEntry(_Lenient):
    """One stage with one configuration: a folder of the output."""

    path: str
    stage: str
    model: str = ""
    method: str | None = None
    metric: str | None = None
    total: int = 0
    split: str = EXPLAINED
    fingerprint: str = ""
    cell: RetrainCell | None = None


class Timing(_Lenient):
    """What a variant took: seconds of computing for its samples; forwards and backwards of one, at most."""

    stage: str
    model: str
    method: str | None = None
    metric: str | None = None
    samples: int
    seconds: float
    forwards: float | None = None
    backwards: float | None = None


class LostUnit(_Lenient):
    """A range of samples that was given up."""

    variant: str
    start: int
    stop: int
    reason: str


class RunRecord(_Lenient):
    """A run's record.

    Attributes:
        control: the method that is the random control, or None where the run has none.
        programs: by method and by metric id, the name of what stands behind it.
        readings: by metric id, how its figures are read.
        same_as: the run that it found everything done by, whose figures are its own; None where it did something.
        (the others: as `jobs.record` writes them)
    """

    run: str
    name: str
    status: str = ""
    started: str | None = None
    finished: str | None = None
    seconds: float | None = None
    seed: int | None = None
    samples: int = 0
    dataset: dict[str, Any] = Field(default_factory=dict)
    spec: dict[str, Any] = Field(default_factory=dict)
    profile: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str | None] = Field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    dataset_fingerprint: str | None = None
    variants: tuple[VariantEntry, ...] = ()
    units: dict[str, int] = Field(default_factory=dict)
    failures: int = 0
    lost: tuple[LostUnit, ...] = ()
    timings: tuple[Timing, ...] = ()
    summary: tuple[Summary, ...] = ()
    programs: dict[str, str] = Field(default_factory=dict)
    readings: dict[str, str] = Field(default_factory=dict)
    same_as: str | None = None

    @property
    def models(self) -> list[str]:
        """Ids of the models, in the order of the spec."""
        return list(dict.fromkeys(variant.model for variant in self.variants if variant.stage != "train"))

    @property
    def methods(self) -> list[str]:
        """Ids of the methods, in the order of the spec, the random control last."""
        found = dict.fromkeys(variant.method for variant in self.variants if variant.method)
        return sorted(found, key=lambda method: method == self.control)

    @property
    def control(self) -> str | None:
        """Id of the random control."""
        methods = (variant.method for variant in self.variants if variant.method)
        return next((method for method in methods if self.programs.get(method, method) == CONTROL), None)

    @property
    def scored(self) -> dict[tuple[str, str, str], tuple[str, int]]:
        """By model, method and metric, the folder of the scores and how many positions of it count."""
        return {
            (one.model, one.method, one.metric): (one.path, one.total)
            for one in self.of_stage("evaluate")
            if one.method is not None and one.metric is not None
        }

    def of_stage(self, stage: str) -> list[VariantEntry]:
        """The variants of one stage over the explained samples."""
        return [variant for variant in self.variants if variant.stage == stage and variant.split == EXPLAINED]


def read_record(output: Output, run: str | None = None, *, described: bool = True) -> RunRecord:
    """Read a run's record.

    Args:
        output: where the run is.
        run: one of `output.runs()`; default: the latest.
        described: look `programs` and `readings` up beside the parts, a read or two for each id; else the programs are
            those of the spec, and there are no readings.

    Raises:
        FatalError: there is no such run, or its record is not what this version can read.
    """
    raw = output.run(run)
    name = run or output.runs()[-1]
    known = {key: value for key, value in raw.items() if value is not None}
    try:
        programs, readings = _descriptions(output, raw.get("variants") or ()) if described else (_programs(raw), {})
        return RunRecord.model_validate(
            {
                "name": name,
                **known,
                "run": name,
                "programs": programs,
                "readings": readings,
                "summary": tuple(_with_axis(row) for row in raw.get("summary") or ()),
            }
        )
    except (ValidationError, TypeError, KeyError) as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"]) if isinstance(error, ValidationError) else ""
        raise FatalError(
            f"{output.uri}: the record of run {name} cannot be read ({where or error}); run the job again"
        ) from error


def _with_axis(row: Any) -> Any:
    """A row of the summary; the axis was named `fractions` before it could be names."""
    if not isinstance(row, Mapping):
        return row
    # A tuple, since of a list of names such as "1" it could not be told whether numbers are meant.
    return {**row, "axis": tuple(row.get("axis") or row.get("fractions") or ())}


def _programs(raw: Mapping[str, Any]) -> dict[str, str]:
    """From the spec as the record holds it: the name of the method or metric behind each id."""
    spec = raw.get("spec")
    if not isinstance(spec, Mapping):
        return {}
    named = (one for kind in ("methods", "metrics") for one in spec.get(kind) or ())
    return {str(one["id"]): str(one["config"]["name"]) for one in named}


def _descriptions(output: Output, variants: Iterable[Mapping[str, Any]]) -> tuple[dict[str, str], dict[str, str]]:
    """From what is kept beside the parts: the name of the method or metric behind each id; metrics' readings by id."""
    programs: dict[str, str] = {}
    readings: dict[str, str] = {}
    for variant in variants:
        kind = {"attribute": "method", "evaluate": "metric"}.get(variant.get("stage", ""))
        identifier = variant.get(kind) if kind else None
        if kind is None or identifier is None or identifier in programs:
            continue
        if output.exists(f"{variant['path']}/_variant.json"):
            description = output.description(variant["path"])
            programs[identifier] = str((description.get(f"{kind}_config") or {}).get("name", identifier))
            if isinstance(description.get("reading"), str) and description["reading"]:
                readings[identifier] = description["reading"]
    return programs, readings

"""The job spec: a YAML file in, a validated job out, or every problem at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PrivateAttr, ValidationError, field_validator

from jobs.document import Document, read_document
from jobs.entry import ENTRY_KEYS, Entry, expand
from jobs.expectation import Translator, got
from jobs.overrides import apply_overrides
from jobs.problem import Place, Problem, SpecError, hint, spelled
from pipeline.contracts import Config
from pipeline.credential import refuse_credentials
from pipeline.data import DatasetConfig
from pipeline.errors import FatalError
from pipeline.methods import Method
from pipeline.metrics import MetricConfig
from pipeline.models import ModelConfig
from pipeline.retrain import RetrainConfig

SPECS = Path(__file__).parent / "specs"
_NAME = "[A-Za-z0-9._-]+"
_LARGEST_SEED = 2**63 - 1  # what a signed 64-bit number holds; torch refuses seeds past 64 bits
_SCHEMES = ("file", "s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss")  # of pyarrow.fs
_NOUNS = {"methods": "method", "metrics": "metric", "dataset": "source"}


class ReportConfig(Config):
    """What the report's page shows."""

    samples: int = Field(24, ge=0, description="images in the gallery")


class CompareConfig(Config):
    """When a rerun is worse than the run before it. No result depends on it."""

    tolerance: dict[str, NonNegativeFloat] = Field(
        {},
        description="by how much a figure may get worse, in its own units: by metric id, by 'METRIC MEASURE', or "
        "default for all others; 0 where nothing is said",
    )


class NamedMethod(Config):
    """A method and what results call it."""

    id: str
    config: Method


class NamedMetric(Config):
    """A metric and what results call it."""

    id: str
    config: MetricConfig


@dataclass(frozen=True, slots=True)
class _Written:
    """The way from places in a `JobSpec` back to the file."""

    document: Document
    entries: dict[str, list[Entry]] = field(default_factory=dict)

    def place(self, place: Place) -> Place:
        """Where the value at a place of the `JobSpec` stands in the file."""
        if len(place) < 2 or place[0] not in self.entries or not isinstance(place[1], int):
            return place
        entry = self.entries[str(place[0])][place[1]]
        rest = place[3:] if place[2:3] == ("config",) else place[2:]
        if rest and isinstance(rest[0], str) and rest[0] in entry.swept:
            return (*entry.place, "sweep", rest[0], entry.swept[rest[0]], *rest[1:])
        return (*entry.place, *rest)

    def problem(self, place: Place, message: str) -> Problem:
        return self.document.problem(self.place(place), message)


class JobSpec(Config):
    """A job: which maps of which models over which data set, and how they are judged.

    Every path is absolute here. In the file, relative paths start at the file's folder; those given by
    `--set` or in a built-in spec start at the current directory, and so does `output` wherever it is written,
    as an output does with any command.
    """

    version: Literal[1] = Field(description="version of this format")
    name: str = Field(
        description="what runs and their report are called: letters, digits and . _ -",
        json_schema_extra={"pattern": f"^{_NAME}$"},
    )
    seed: int = Field(0, ge=0, le=_LARGEST_SEED, description="of every random draw")
    output: str = Field(min_length=1, description="folder, s3://bucket/prefix or gs://bucket/prefix")
    dataset: DatasetConfig = Field(description="the images")
    models: tuple[ModelConfig, ...] = Field(min_length=1, description="the classifiers to explain")
    methods: tuple[NamedMethod, ...] = Field(min_length=1, description="how they are explained")
    metrics: tuple[NamedMetric, ...] = Field((), description="how the explanations are judged")
    retrain: RetrainConfig | None = Field(None, description="remove (or keep) and retrain")
    report: ReportConfig = Field(ReportConfig(), description="the page at the end")
    compare: CompareConfig = Field(CompareConfig(), description="what `heatline compare` calls a regression")
    max_failed_share: float = Field(
        0.0, ge=0, le=1, description="share of samples that may fail before the exit code is 1"
    )

    _written: _Written | None = PrivateAttr(None)

    @field_validator("name")
    @classmethod
    def _name_is_plain(cls, name: str) -> str:
        if not re.fullmatch(_NAME, name):
            raise ValueError(f"expected letters, digits and . _ -, got {got(name)}")
        return name

    @field_validator("output")
    @classmethod
    def _output_can_be_opened(cls, output: str) -> str:
        scheme, uri, _ = output.partition("://")
        try:
            refuse_credentials(output)
        except FatalError as error:
            raise ValueError(str(error)) from None
        if uri and scheme not in _SCHEMES:
            schemes = ", ".join(f"{known}://" for known in _SCHEMES)
            raise ValueError(f"expected a folder, or a URI that begins with one of {schemes}; got {got(output)}")
        return output

    def problem(self, place: Place, message: str) -> Problem:
        """A problem found after validation, at the line that brought the value.

        Args:
            place: the way to the value in this object, such as ("methods", 3, "config", "steps"); an entry
                that a sweep made leads to the sweep.
            message: what was got, what was expected, and the mend.
        """
        if self._written is None:
            return Problem(self.name, None, spelled(place), message)
        return self._written.problem(place, message)

    def paths(self) -> list[tuple[Place, str]]:
        """Where data and weights are read, with their places in this object."""
        found: list[tuple[Place, str]] = []
        for key in self.dataset.paths:
            path = getattr(self.dataset, key)
            if path is not None:
                found.append((("dataset", key), path))
        for number, model in enumerate(self.models):
            weights = model.weights_path()
            if weights is not None:
                found.append((("models", number, "weights"), weights))
        return found

    def _with_absolute_paths(self, document: Document) -> Self:
        models = []
        for index, model in enumerate(self.models):
            folder = document.origin(("models", index, "weights")).folder
            path = model.weights_path()
            moved = {} if path is None else {"weights": _absolute(path, folder)}
            models.append(model.model_copy(update=moved))
        paths = {
            key: _absolute(path, document.origin(("dataset", key)).folder)
            for key in self.dataset.paths
            if (path := getattr(self.dataset, key)) is not None
        }
        return self.model_copy(
            update={
                "output": _absolute(self.output, Path.cwd()),
                "dataset": self.dataset.model_copy(update=paths),
                "models": tuple(models),
            }
        )


def built_in_specs() -> dict[str, Path]:
    """The specs that come with heatline, by name (`quickstart`)."""
    return {path.relative_to(SPECS).with_suffix("").as_posix(): path for path in sorted(SPECS.rglob("*.yaml"))}


def find_spec(name: str) -> Path:
    """The file that a spec's name means: a path, else a built-in spec.

    Raises:
        SpecError: there is neither, or the path is a folder.
    """
    path, built_in = Path(name).expanduser(), built_in_specs()
    if path.is_file():
        return path
    if name in built_in:
        return built_in[name]
    if path.is_dir():
        raise SpecError([Problem(name, None, "", "expected a spec file, got a folder")])
    known = hint(name, list(built_in)).replace("; known:", "; built-in specs:")
    raise SpecError([Problem(name, None, "", f"no such file{known}")])


def load_spec(path: str | Path, overrides: Sequence[str] = ()) -> JobSpec:
    """Reads and validates a spec.

    Args:
        path: a file, or the name of a built-in spec.
        overrides: KEY=VALUE changes, as after `--set`.

    Raises:
        SpecError: with every problem that can be found without opening data or weights.
    """
    name = str(path)
    file, here = find_spec(name), Path.cwd()
    built_in = file == built_in_specs().get(name)
    document = read_document(file, name, here if built_in else file.absolute().parent)
    problems = apply_overrides(document, overrides, here)
    if not isinstance(document.value, dict):
        what = "an empty file" if document.value is None else got(document.value)
        raise SpecError([document.problem((), f"expected keys such as dataset, models and methods, got {what}")])
    value, written = dict(document.value), _Written(document)
    for key in ("methods", "metrics"):
        if isinstance(value.get(key), list):
            written.entries[key], found = expand(document, key, value[key])
            value[key] = [{"id": entry.id, "config": entry.config} for entry in written.entries[key]]
            problems += found
    problems += _same_models(document, value.get("models"))
    try:
        # Strict, so that '20' is no number and true is not 1.
        spec = JobSpec.model_validate(_frozen(value), strict=True)
    except ValidationError as error:
        raise SpecError(_in_order(problems + _translated(error, value, written))) from error
    if problems:
        raise SpecError(_in_order(problems))
    spec = spec._with_absolute_paths(document)
    spec._written = written
    if problems := _credentials(spec):
        raise SpecError(problems)
    return spec


def _credentials(spec: JobSpec) -> list[Problem]:
    """Paths with credentials in them, which would travel with the spec to wherever it runs and is kept."""
    problems = []
    for place, path in spec.paths():
        try:
            refuse_credentials(path)
        except FatalError as error:
            problems.append(spec.problem(place, str(error)))
    return problems


def _absolute(path: str, folder: Path) -> str:
    return path if "://" in path else str((folder / Path(path).expanduser()).resolve())


def _frozen(value: object) -> object:
    """Lists as tuples, as the configurations hold them."""
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _same_models(document: Document, models: object) -> list[Problem]:
    """Models whose ids, given or by default, are the same."""
    problems: list[Problem] = []
    seen: list[str] = []
    for index, model in enumerate(models if isinstance(models, list) else []):
        name = _model_id(model)
        if name is not None and name in seen:
            message = f"two models are called '{name}': give one of them an id"
            problems.append(document.problem(("models", index), message))
        seen += [] if name is None else [name]
    return problems


def _model_id(model: object) -> str | None:
    """What results are going to call a model; None where too much is wrong with it to say."""
    try:
        return ModelConfig.model_validate(_frozen(model), strict=True).id
    except ValidationError:
        name = model.get("id", model.get("name")) if isinstance(model, dict) else None
        return name if isinstance(name, str) else None


def _translated(error: ValidationError, value: object, written: _Written) -> list[Problem]:
    """Pydantic's errors as problems with lines; a misspelled key is not reported as a missing one as well."""

    def extra_keys(place: Place) -> Sequence[str]:
        return ENTRY_KEYS if place[:1] in (("methods",), ("metrics",)) and len(place) == 3 else ()

    translator = Translator(JobSpec, value, nouns=_NOUNS, extra_keys=extra_keys)
    problems = []
    for details in error.errors(include_url=False):
        if details["type"] == "too_short" and len(details["input"]) > 0:
            continue  # pydantic counts the valid entries; the others have problems of their own
        inner, message = translator.translate(details)
        place = written.place(inner)
        if details["type"] == "extra_forbidden" and place[2:3] == ("sweep",):
            place = place[:4]
        if inner[2:] == ("config",):
            message = message.replace("a mapping", f"a {_NOUNS[str(inner[0])]}'s name, or a mapping with one", 1)
        problems.append(written.document.problem(place, message))
    meant = {
        f"{problem.place.rpartition('.')[0]}.{match[1]}".lstrip(".")
        for problem in problems
        if (match := re.fullmatch(r"unknown key.*did you mean '(.+)'\?", problem.message))
    }
    return [p for p in problems if not (p.message.startswith("missing;") and p.place in meant)]


def _in_order(problems: Sequence[Problem]) -> list[Problem]:
    return sorted(dict.fromkeys(problems), key=lambda problem: (problem.line is None, problem.line or 0))

"""What there is to choose from, read off the classes themselves: methods, metrics, models and sources."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import BaseModel

from jobs.entry import CAPTUM
from jobs.expectation import expected
from jobs.problem import Problem, SpecError, hint
from pipeline.contracts import AttributionMethod, Cost, Metric, Setting
from pipeline.data import SOURCES
from pipeline.methods import METHODS
from pipeline.metrics import METRICS
from pipeline.models import ModelConfig, known_models

Kind = Literal["methods", "metrics", "models", "sources"]
KINDS: tuple[Kind, ...] = get_args(Kind)

COST_SETTING = Setting(classes=1000, height=224, width=224)
"""Where the costs in the catalogue are taken."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One key of an entry.

    Attributes:
        name: the key.
        type: what it takes, in plain words.
        default: as YAML writes it; None where a value must be given.
        description: what it does; may be empty.
    """

    name: str
    type: str
    default: str | None
    description: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A method, metric, model or source.

    Attributes:
        kind: which of these it is.
        name: as in a spec.
        summary: one sentence.
        details: the rest of its description; may be empty.
        parameters: its keys.
        cost: for one sample at `COST_SETTING`, an upper bound; None for what costs nothing or runs methods again.
        source: the paper or code it follows; None where there is none.
        weights: a model's published weights.
    """

    kind: Kind
    name: str
    summary: str
    details: str = ""
    parameters: tuple[Parameter, ...] = ()
    cost: Cost | None = None
    source: str | None = None
    weights: tuple[str, ...] = ()


def catalog(kind: Kind) -> list[Entry]:
    """Everything of one kind, in the order in which the room lists it."""
    return _READERS[kind]()


def find(name: str) -> list[Entry]:
    """The entries of that name; several where a name is used by more than one kind.

    Raises:
        SpecError: nothing is called so; it says what was probably meant.
    """
    entries = [entry for kind in KINDS for entry in catalog(kind)]
    # Any captum:NAME is described by captum's own entry.
    wanted = CAPTUM[:-1] if name.startswith(CAPTUM) else name
    found = [entry for entry in entries if entry.name == wanted]
    if not found:
        near = hint(name, [entry.name for entry in entries])
        mend = near if "did you mean" in near else "; see heatline list"
        raise SpecError([Problem(name, None, "", f"no method, metric, model or source is called so{mend}")])
    return found


def summary(model: type[BaseModel]) -> str:
    """The first sentence of a class's docstring."""
    return (inspect.getdoc(model) or "").partition("\n\n")[0].replace("\n", " ")


def _described(kind: Kind, model: type[BaseModel], tag: str, cost: Cost | None = None) -> Entry:
    text = inspect.getdoc(model) or ""
    body, _, source = text.partition("\nSource:")
    _, _, details = body.partition("\n\n")
    return Entry(
        kind,
        str(model.model_fields[tag].default),
        summary(model),
        # Paragraphs are filled again as wide as the terminal; the items of a list each begin a line.
        re.sub(r"(?<!\n)\n(?!\n|- )", " ", re.sub(r"\n +(?!- )", "\n", details)).strip(),
        _parameters(model, tag),
        cost,
        " ".join(source.split()) or None,
    )


def _parameters(model: type[BaseModel], *left_out: str) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(
            name,
            expected(field.annotation, field.metadata),
            None if field.is_required() else _written(field.get_default()),
            field.description or "",
        )
        for name, field in model.model_fields.items()
        if name not in left_out
    )


def _written(value: object) -> str:
    """A default as YAML writes it."""
    return value if isinstance(value, str) and value else json.dumps(value)


def _cost(measured: type[AttributionMethod] | type[Metric]) -> Cost | None:
    """With default parameters; None where one has no default, or where the cost is a method's, again and again."""
    if issubclass(measured, Metric) and measured.explains:
        return None
    if any(field.is_required() for field in measured.model_fields.values()):
        return None
    return measured.model_validate({}).cost(COST_SETTING)


def _methods() -> list[Entry]:
    return [_described("methods", method, "name", _cost(method)) for method in METHODS]


def _metrics() -> list[Entry]:
    return [_described("metrics", metric, "name", _cost(metric)) for metric in METRICS]


def _models() -> list[Entry]:
    parameters = _parameters(ModelConfig, "name")
    return [
        Entry(
            "models",
            model.name,
            f"{model.parameters / 1e6:,.2f} million parameters, {_ORIGINS.get(model.family, model.family)}",
            parameters=parameters,
            weights=model.weights,
        )
        for model in known_models()
    ]


_ORIGINS = {"own": "a small net of heatline's own", "torchvision": "from torchvision"}


def _sources() -> list[Entry]:
    return [_described("sources", source, "source") for source in SOURCES]


_READERS: dict[Kind, Callable[[], list[Entry]]] = {
    "methods": _methods,
    "metrics": _metrics,
    "models": _models,
    "sources": _sources,
}

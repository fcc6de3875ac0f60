"""The JSON Schema of a spec as people write it: bare names, ids and sweeps included."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from jobs.catalog import summary
from jobs.entry import CAPTUM
from jobs.spec import JobSpec
from pipeline.methods import METHODS, Captum
from pipeline.metrics import METRICS

Schema = dict[str, Any]

_CAPTUM_NAME = f"^{CAPTUM}[A-Za-z]+$"


def spec_schema() -> Schema:
    """The schema, draft 2020-12.

    It is a little wider than what `load_spec` takes: the file says what is in reach of an editor, and
    `heatline validate` the rest (ids that stand twice, files that are not there).
    """
    refs, shared = models_json_schema(
        [(model, "validation") for model in (JobSpec, *METHODS, *METRICS)], ref_template="#/$defs/{model}"
    )
    definitions: Schema = shared["$defs"]
    names = {model: refs[model, "validation"]["$ref"].rpartition("/")[2] for model in (*METHODS, *METRICS)}
    spec: Schema = definitions.pop(refs[JobSpec, "validation"]["$ref"].rpartition("/")[2])
    properties: Schema = spec["properties"]
    properties["methods"] |= {"items": _entries(METHODS, names)}
    properties["metrics"] |= {"items": _entries(METRICS, names)}
    for model, name in names.items():
        definitions[name] = _entry(model, definitions[name])
    for unused in ("NamedMethod", "NamedMetric"):
        del definitions[unused]
    for definition in definitions.values():
        _require_tags(definition)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "heatline job spec",
        "description": summary(JobSpec),
        **{key: value for key, value in spec.items() if key not in ("title", "description")},
        "$defs": definitions,
    }


def _entries(models: Sequence[type[BaseModel]], names: dict[Any, str]) -> Schema:
    """One method or metric: its bare name, or a mapping told apart by `name`."""
    bare = [{"const": _tag(model), "description": summary(model)} for model in models if model is not Captum]
    if Captum in models:
        bare.append({"type": "string", "pattern": _CAPTUM_NAME, "description": summary(Captum)})
    return {"anyOf": [{"oneOf": bare}, {"oneOf": [{"$ref": f"#/$defs/{names[model]}"} for model in models]}]}


def _tag(model: type[BaseModel]) -> str:
    return str(model.model_fields["name"].default)


def _entry(model: type[BaseModel], definition: Schema) -> Schema:
    """A method's or metric's mapping, with `id` and `sweep` beside its parameters."""
    entry = copy.deepcopy(definition)
    parameters = {key: value for key, value in entry["properties"].items() if key != "name"}
    entry["description"] = summary(model)
    entry["properties"]["id"] = {
        "type": "string",
        "description": "how results call it; default: name",
        "pattern": "^[A-Za-z0-9][A-Za-z0-9._+-]*$",
    }
    entry["properties"]["sweep"] = {
        "type": "object",
        "description": "a grid: each parameter with a list of values; every combination is taken",
        "additionalProperties": False,
        "minProperties": 1,
        "properties": {
            key: {"type": "array", "minItems": 1, "items": _without_default(value)} for key, value in parameters.items()
        },
    }
    if model is Captum:
        entry["properties"]["name"] = {"type": "string", "pattern": _CAPTUM_NAME}
        del entry["properties"]["attribution"]
    # A parameter without a default may stand in the sweep instead.
    entry["required"] = ["name"]
    return entry


def _without_default(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key not in ("default", "title")}


def _require_tags(definition: Schema) -> None:
    """A name or source that tells classes apart has a default in Python, and must be written in a file."""
    for tag in ("name", "source"):
        if "const" in definition.get("properties", {}).get(tag, {}):
            definition["required"] = sorted({tag, *definition.get("required", [])})

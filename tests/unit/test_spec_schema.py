"""The JSON Schema says of a spec what `load_spec` says."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml

from jobs.commands.init import starter_spec
from jobs.schema import spec_schema
from jobs.spec import SPECS, built_in_specs
from pipeline.data import SOURCES
from pipeline.methods import METHODS
from pipeline.metrics import METRICS


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = spec_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def quickstart(**changes: Any) -> Any:
    return {**yaml.safe_load((SPECS / "quickstart.yaml").read_text()), **changes}


@pytest.mark.parametrize("name", built_in_specs())
def test_it_takes_the_built_in_specs(validator: Any, name: str) -> None:
    validator.validate(yaml.safe_load(built_in_specs()[name].read_text()))


@pytest.mark.parametrize("source", ["digits", "shapes", "mnist", "cifar10", "imagenet", "imagefolder", "parquet"])
def test_it_takes_the_starter_specs(validator: Any, source: str) -> None:
    validator.validate(yaml.safe_load(starter_spec("a.yaml", source)))


@pytest.mark.parametrize(
    "entry",
    [
        "agi",
        {"name": "agi"},
        {"name": "agi", "id": "few", "steps": 3, "classes": None},
        {"name": "agi", "sweep": {"classes": [1, 2], "step_size": [0.1]}},
        "captum:Saliency",
        {"name": "captum:Occlusion", "arguments": {"sliding_window_shapes": [3, 4, 4]}},
    ],
)
def test_it_takes_a_name_parameters_and_a_sweep(validator: Any, entry: object) -> None:
    validator.validate(quickstart(methods=[entry]))


@pytest.mark.parametrize(
    "changes",
    [
        {"metrcs": []},
        {"version": 2},
        {"name": "a b"},
        {"seed": -1},
        {"methods": []},
        {"methods": "gradient"},
        {"methods": ["agii"]},
        {"methods": [{"name": "agi", "stepz": 3}]},
        {"methods": [{"name": "agi", "steps": 0}]},
        {"methods": [{"steps": 3}]},
        {"methods": [{"name": "agi", "sweep": {"stepz": [3]}}]},
        {"methods": [{"name": "agi", "sweep": {"steps": 3}}]},
        {"methods": ["deletion"]},
        {"metrics": ["gradient"]},
        {"dataset": {"source": "digits", "limt": 4}},
        {"dataset": {"limit": 4}},
        {"models": [{"name": "cifar_cnn4", "weights": "train", "training": {"epoch": 3}}]},
        {"report": {"sample": 3}},
    ],
    ids=str,
)
def test_it_refuses(validator: Any, changes: dict[str, Any]) -> None:
    assert not validator.is_valid(quickstart(**changes))


def test_it_names_everything_there_is() -> None:
    schema = spec_schema()
    named = {
        str(properties[tag]["const"])
        for definition in schema["$defs"].values()
        for tag in ("name", "source")
        if "const" in (properties := definition["properties"]).get(tag, {})
    }
    known = [*METHODS, *METRICS]
    assert named | {"captum"} == {str(each.model_fields["name"].default) for each in known} | {
        str(source.model_fields["source"].default) for source in SOURCES
    }


def test_every_reference_leads_somewhere() -> None:
    schema = spec_schema()

    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [found for value in node.values() for found in references(value)]
        return [found for value in node for found in references(value)] if isinstance(node, list) else []

    assert {reference.removeprefix("#/$defs/") for reference in references(schema)} <= set(schema["$defs"])

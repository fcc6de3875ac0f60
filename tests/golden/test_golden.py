"""Every method and metric on a network with fixed weights, against figures kept from before.

`pytest tests/golden --update-golden` writes the files anew; a change in them needs a revision and a line in CHANGELOG.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from method_parameters import GOLDEN
from metric_case import GOLDEN as METRIC_GOLDEN
from metric_case import both, case
from small_models import linear_classifier, make_batch, small_classifier

from pipeline.contracts import AttributionMethod, Metric
from pipeline.methods import METHODS
from pipeline.metrics import METRICS
from pipeline.noise import Noise
from pipeline.reduction import reduce_channels

FOLDER = Path(__file__).parent
# Measures that differ from run to run.
MEASURED = {"runtime": ("seconds", "memory_mb")}


def compare(request: pytest.FixtureRequest, name: str, found: dict[str, list[float]]) -> None:
    file = FOLDER / f"{name}.json"
    if request.config.getoption("--update-golden"):
        file.write_text(json.dumps(found, indent=1) + "\n")
    kept = json.loads(file.read_text())
    assert kept.keys() == found.keys()
    for key, values in kept.items():
        np.testing.assert_allclose(np.array(found[key]), np.array(values, dtype=float), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.model_fields["name"].default)
def test_method(kind: type[AttributionMethod], request: pytest.FixtureRequest) -> None:
    name = kind.model_fields["name"].default
    method = kind(**GOLDEN.get(name, {}))
    model = small_classifier()
    batch = make_batch(model, 2)
    maps = reduce_channels(method(model, batch, Noise()), method.reduction)
    found = {
        sample: [round(value, 6) for value in row.flatten().tolist()]
        for sample, row in zip(batch.ids, maps, strict=True)
    }
    compare(request, f"method-{name}", found)


@pytest.mark.parametrize("kind", METRICS, ids=lambda kind: kind.model_fields["name"].default)
def test_metric(kind: type[Metric], request: pytest.FixtureRequest) -> None:
    name = kind.model_fields["name"].default
    metric = kind(**METRIC_GOLDEN.get(name, {}))
    # The small network predicts one class whatever it is shown, which says nothing of an accuracy.
    model, batch, maps, context = case(4, linear_classifier(5, 8) if name == "insertion_accuracy" else None)
    if not metric.explains:
        # Such a metric compares a method's maps with others of the same method; all else takes any map.
        maps = Noise(2).normal("map", batch.ids, (1, 8, 8))
    scores = both(metric(model, batch, maps, context))
    found = {
        key: [round(value, 6) for value in values.flatten().tolist()]
        for key, values in scores.items()
        if key not in MEASURED.get(name, ())
    }
    compare(request, f"metric-{name}", found)

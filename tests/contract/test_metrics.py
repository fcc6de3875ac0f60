"""What holds for every metric."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from metric_case import METHOD, QUICK, both, case
from small_models import small_classifier

from pipeline.contracts import Batch, Cost, Metric, Setting
from pipeline.metrics import METRICS
from pipeline.models import Classifier
from pipeline.models.block import network_parts
from pipeline.models.pass_counter import counting
from pipeline.noise import Noise

# Metrics that may stop early, so that their declared cost is an upper bound.
STOPS_EARLY = {"mar"}
# Metrics whose values are not the map's alone: seconds differ from run to run.
MEASURED = {"runtime"}


@pytest.fixture(params=METRICS, ids=lambda kind: kind.model_fields["name"].default)
def metric(request: pytest.FixtureRequest) -> Metric:
    found: Metric = request.param(**QUICK.get(request.param.model_fields["name"].default, {}))
    return found


def setting() -> Setting:
    parts = network_parts(small_classifier().network, 8, 8)
    return Setting(5, 8, 8, blocks=parts.names("block"), layers=parts.names("layer"))


def part(batch: Batch, row: int) -> Batch:
    rows = slice(row, row + 1)
    regions = {name: region[rows] for name, region in batch.regions.items()}
    return Batch(batch.images[rows], batch.targets[rows], batch.ids[rows], regions=regions)


def test_one_row_a_sample(metric: Metric) -> None:
    model, batch, maps, context = case()
    scores = metric(model, batch, maps, context)
    axis = metric.curve_axis(setting())
    assert scores.measures and all(values.shape == (5,) for values in scores.measures.values())
    assert all(curve.shape == (5, len(axis)) for curve in scores.curves.values())
    assert bool(scores.curves) == bool(axis) and scores.curves.keys() <= scores.measures.keys()
    assert all(values.isfinite().any() for values in scores.measures.values())


def test_its_measures_are_those_that_it_declares(metric: Metric) -> None:
    model, batch, maps, context = case()
    context = replace(context, columns={name: torch.ones(5) for name in metric.columns})
    assert tuple(metric(model, batch, maps, context).measures) == metric.measures


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_a_score_does_not_depend_on_its_batch(metric: Metric, rows: int) -> None:
    if metric.name in MEASURED:
        pytest.skip("what it measures is not the same twice")
    model, batch, maps, context = case()
    together = both(metric(model, batch, maps, context))
    model.rows = rows
    alone = [both(metric(model, part(batch, row), maps[row : row + 1], context)) for row in range(5)]
    for name, values in together.items():
        found = torch.cat([one[name] for one in alone])
        torch.testing.assert_close(found, values, atol=1e-4, rtol=1e-4, equal_nan=True)


def test_a_reader_is_told_how_to_read_it(metric: Metric) -> None:
    assert metric.reading and metric.higher_is_better in (True, False)
    # Where a parameter decides which way is better, the sentence cannot say so.
    told = {True: "higher is better", False: "lower is better"}[metric.higher_is_better]
    assert told in metric.reading or metric.name in ("perturbation_curve", "runtime")


def test_a_metric_leaves_nothing_behind(metric: Metric) -> None:
    model, batch, maps, context = case()
    state = torch.get_rng_state()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scores = metric(model, batch, maps, context)
    assert torch.equal(state, torch.get_rng_state())
    assert not any(values.requires_grad for values in both(scores).values())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_declared_cost_bounds_what_is_counted(metric: Metric) -> None:
    model, batch, maps, context = case()
    if metric.explains or metric.permutes:
        pytest.skip("its passes go through other models; counted in its own test")
    with counting(model) as counts:
        metric(model, batch, maps, context)
    declared = metric.cost(setting(), METHOD.cost(setting()))
    counted = Cost(counts.forwards / 5, counts.backwards / 5)
    assert counted.forwards <= declared.forwards and counted.backwards <= declared.backwards
    if metric.name not in STOPS_EARLY:
        assert counted == declared


def test_a_map_of_another_size_or_that_is_not_finite_is_refused(metric: Metric) -> None:
    model, batch, maps, context = case()
    with pytest.raises(ValueError, match="expected maps of"):
        metric(model, batch, maps[..., 1:], context)
    broken = maps.clone()
    broken[3, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=f"{batch.ids[3]} is not finite"):
        metric(model, batch, broken, context)


def test_a_constant_map_has_no_score_where_the_order_counts(metric: Metric) -> None:
    if not metric.orders:
        pytest.skip("a constant map has a score")
    model, batch, maps, context = case()
    maps = maps.clone()
    maps[1] = 0.5
    scores = both(metric(model, batch, maps, context))
    whole = both(metric(model, batch, case()[2], context))
    for name, values in scores.items():
        assert values[1].isnan().all()
        kept = [0, 2, 3, 4]
        torch.testing.assert_close(values[kept], whole[name][kept], equal_nan=True)


def test_a_better_map_scores_better(metric: Metric) -> None:
    # The target's logit is the sum of the pixels of the left half: a map that knows it against its opposite.
    if metric.explains or metric.permutes or metric.name in MEASURED:
        pytest.skip("it does not judge the map alone")
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 2))
    known = torch.zeros(1, 8, 8)
    known[..., :4] = 1
    with torch.no_grad():
        network[1].weight.copy_(torch.stack([known.expand(3, 8, 8).flatten(), torch.zeros(192)]) / 8)
        network[1].bias.copy_(torch.tensor([-2.0, 0.0]))
    model = Classifier(network, classes=2, mean=(0.1, 0.1, 0.1))
    ids = ("a", "b", "c", "d")
    images = 0.85 + 0.1 * Noise().uniform("image", ids, (3, 8, 8))
    regions = {"object": known.bool().expand(4, 1, 8, 8)}
    batch = Batch(images, torch.zeros(4, dtype=torch.long), ids, regions=regions)
    good = metric(model, batch, known.expand(4, 1, 8, 8)).measures
    bad = metric(model, batch, -known.expand(4, 1, 8, 8)).measures
    name = next(iter(good))
    better = good[name] > bad[name] if metric.higher_is_better else good[name] < bad[name]
    # A share that is never predicted has no value: the good map has one.
    assert (better | (bad[name].isnan() & good[name].isfinite())).all()

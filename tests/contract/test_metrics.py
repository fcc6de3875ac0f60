"""What holds for every metric."""

from __future__ import annotations

import pytest
import torch
from small_models import make_batch, small_classifier

from pipeline.contracts import Batch, Metric, Setting
from pipeline.metrics import METRICS
from pipeline.noise import Noise


@pytest.fixture(params=METRICS, ids=lambda kind: kind.model_fields["name"].default)
def metric(request: pytest.FixtureRequest) -> Metric:
    found: Metric = request.param()
    return found


def test_one_row_a_sample(metric: Metric) -> None:
    model = small_classifier()
    batch = make_batch(model)
    scores = metric(model, batch, Noise().normal("m", batch.ids, (1, 8, 8)))
    fractions = metric.curve_fractions(Setting(5, 8, 8))
    for name, values in scores.items():
        assert values.shape == ((5, len(fractions)) if name == "curve" else (5,))
    assert ("curve" in scores) == bool(fractions)


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_a_score_does_not_depend_on_its_batch(metric: Metric, rows: int) -> None:
    model = small_classifier()
    batch = make_batch(model)
    maps = Noise().normal("m", batch.ids, (1, 8, 8))
    together = metric(model, batch, maps)
    model.rows = rows
    alone = [
        metric(
            model,
            Batch(batch.images[i : i + 1], batch.targets[i : i + 1], batch.ids[i : i + 1]),
            maps[i : i + 1],
        )
        for i in range(5)
    ]
    for name, values in together.items():
        torch.testing.assert_close(torch.cat([one[name] for one in alone]), values, atol=1e-5, rtol=0)


def test_a_metric_draws_no_global_random_number_and_needs_no_gradient(metric: Metric) -> None:
    model = small_classifier()
    batch = make_batch(model)
    state = torch.get_rng_state()
    scores = metric(model, batch, Noise().normal("m", batch.ids, (1, 8, 8)))
    assert torch.equal(state, torch.get_rng_state())
    assert not any(values.requires_grad for values in scores.values())


def test_the_declared_cost_bounds_what_is_counted(metric: Metric) -> None:
    model = small_classifier()
    batch = make_batch(model)
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    metric(model, batch, Noise().normal("m", batch.ids, (1, 8, 8)))
    forwards = sum(seen) / 5
    declared = metric.cost(Setting(5, 8, 8)).forwards
    assert forwards <= declared
    if metric.name != "mar":  # stops at the first success
        assert forwards == declared


def test_a_better_map_scores_better(metric: Metric) -> None:
    # The target's logit is the sum of the pixels of the left half: a map that knows it against its opposite.
    from pipeline.models import Classifier

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 2))
    known = torch.zeros(1, 8, 8)
    known[..., :4] = 1
    with torch.no_grad():
        network[1].weight.copy_(torch.stack([known.expand(3, 8, 8).flatten(), torch.zeros(192)]) / 8)
        network[1].bias.copy_(torch.tensor([-2.0, 0.0]))
    model = Classifier(network, classes=2, mean=(0.1, 0.1, 0.1))
    images = torch.full((4, 3, 8, 8), 0.9)
    batch = Batch(images, torch.zeros(4, dtype=torch.long), ("a", "b", "c", "d"))
    measure = next(name for name in metric(model, batch, known.expand(4, 1, 8, 8)) if name != "curve")
    good = metric(model, batch, known.expand(4, 1, 8, 8))[measure]
    bad = metric(model, batch, -known.expand(4, 1, 8, 8))[measure]
    assert ((good > bad) if metric.higher_is_better else (good < bad)).all()

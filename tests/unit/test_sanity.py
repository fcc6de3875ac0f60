"""The sanity checks against loops over copied models, SciPy and scikit-image, and closed forms."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from small_models import make_batch, settle, small_classifier, small_network
from torch import Tensor, nn

from pipeline.contracts import AttributionMethod, Batch, Context, Cost, Setting
from pipeline.methods import Gradient, GradientXInput
from pipeline.metrics import SanityLabels, SanityParameters
from pipeline.metrics.similarity import abs_spearman, spearman, ssim
from pipeline.models import Classifier
from pipeline.models.randomise import Randomisation, RandomisedModels
from pipeline.noise import Noise
from pipeline.reduction import reduce_channels

BLOCKS = ("0", "2", "6")
SETTING = Setting(5, 8, 8, blocks=BLOCKS, layers=BLOCKS)


def explaining(method: AttributionMethod) -> Callable[[Classifier, Batch], Tensor]:
    def explain(model: Classifier, batch: Batch) -> Tensor:
        return reduce_channels(method(model, batch, Noise()), method.reduction)

    return explain


def slow_similarities(first: Tensor, second: Tensor) -> dict[str, float]:
    """Of one pair of maps."""
    a, b = first.double().numpy()[0], second.double().numpy()[0]
    return {
        "spearman": spearmanr(a.ravel(), b.ravel()).statistic,
        "abs_spearman": spearmanr(np.abs(a).ravel(), np.abs(b).ravel()).statistic,
        "ssim": structural_similarity(a / np.abs(a).max(), b / np.abs(b).max(), data_range=2),
    }


@pytest.mark.parametrize("order", ["cascading", "independent"])
@pytest.mark.parametrize("target", ["fixed", "argmax"])
def test_parameters_are_checked_as_by_a_loop_over_copied_models(order: str, target: str) -> None:
    model = small_classifier()
    batch = make_batch(model, 3)
    explain = explaining(GradientXInput())
    maps = explain(model, batch)
    metric = SanityParameters.model_validate({"order": order, "target": target, "deviation": 0.3, "repeats": 2})
    scores = metric(model, batch, maps, Context(noise=Noise(4), explain=explain))
    expected: dict[str, list[list[list[float]]]] = {}
    for repeat in range(2):
        for step in range(3):
            copied = copy.deepcopy(model)
            for block in BLOCKS[::-1][: step + 1] if order == "cascading" else BLOCKS[::-1][step : step + 1]:
                for kind in ("weight", "bias"):
                    name = f"{block}.{kind}"
                    parameter = copied.network.get_parameter(name)
                    parameter.data = 0.3 * Noise(4).normal("randomised", [name], tuple(parameter.shape), repeat)[0]
            for row in range(3):
                image = batch.images[row : row + 1]
                chosen = copied(image).argmax(1) if target == "argmax" else batch.targets[row : row + 1]
                found = explain(copied, Batch(image, chosen, batch.ids[row : row + 1]))
                for name, value in slow_similarities(maps[row], found[0]).items():
                    values = expected.setdefault(name, [[[] for _ in range(3)] for _ in range(3)])
                    values[row][step].append(value)
    assert list(scores.measures) == ["spearman", "abs_spearman", "ssim"]
    for name, values in expected.items():
        curve = np.array(values).mean(2)
        # A lone image rounds otherwise than a batch on some thread counts: two close ranks of 64 may change places.
        np.testing.assert_allclose(scores.curves[name], curve, atol=5e-3)
        np.testing.assert_allclose(scores.measures[name], curve.mean(1), atol=5e-3)
    assert metric.curve_axis(SETTING) == ("6", "2", "0")


def two_layers(hidden: int) -> Classifier:
    return Classifier(settle(nn.Sequential(nn.Flatten(), nn.Linear(192, hidden), nn.Linear(hidden, 4))), classes=4)


def test_the_gradient_of_two_linear_layers_has_a_closed_form() -> None:
    model = two_layers(6)
    batch = make_batch(model, 4)
    explain = explaining(Gradient(reduction="sum"))
    first, second = (model.network.get_parameter(f"{layer}.weight") for layer in (1, 2))
    drawn_first, drawn_second = (
        0.01 * Noise().normal("randomised", [f"{layer}.weight"], tuple(weight.shape))[0]
        for layer, weight in ((1, first), (2, second))
    )

    def gradients(inner: Tensor, outer: Tensor) -> Tensor:
        return (outer[batch.targets] @ inner).view(4, 3, 8, 8).sum(1, keepdim=True)

    maps = gradients(first, second)
    steps = {
        "cascading": [gradients(first, drawn_second), gradients(drawn_first, drawn_second)],
        "independent": [gradients(first, drawn_second), gradients(drawn_first, second)],
    }
    for order, changed in steps.items():
        metric = SanityParameters.model_validate({"order": order, "similarity": ("spearman",)})
        found = metric(model, batch, maps, Context(explain=explain)).curves["spearman"]
        for row in range(4):
            for step in range(2):
                expected = spearmanr(maps[row].flatten(), changed[step][row].flatten()).statistic
                assert found[row, step].item() == pytest.approx(expected, abs=1e-4)


def test_a_map_that_the_last_layer_only_scales_keeps_its_order() -> None:
    # One hidden unit: whatever the class's weight is, the gradient is a multiple of the same map.
    model = two_layers(1)
    batch = make_batch(model, 4)
    explain = explaining(Gradient(reduction="sum"))
    curves = SanityParameters()(model, batch, explain(model, batch), Context(explain=explain)).curves
    old = model.network.get_parameter("2.weight")[batch.targets, 0]
    new = Noise().normal("randomised", ["2.weight"], (4, 1))[0][batch.targets, 0]
    assert curves["spearman"][:, 0].tolist() == (old * new).sign().tolist()
    assert curves["abs_spearman"][:, 0].tolist() == [1, 1, 1, 1]
    # The map is gone once the first layer is drawn as well.
    assert (curves["abs_spearman"][:, 1].abs() < 0.5).all()


def scripted(*answers: Tensor) -> tuple[Context, list[tuple[Classifier, Batch]]]:
    """A context whose method gives these maps, one call after the other, and what it was asked."""
    asked: list[tuple[Classifier, Batch]] = []

    def explain(model: Classifier, batch: Batch) -> Tensor:
        asked.append((model, batch))
        return answers[len(asked) - 1]

    return Context(explain=explain), asked


def test_a_step_without_a_map_or_with_a_constant_one_has_no_value_and_its_sample_no_measure() -> None:
    model = small_classifier()
    batch = make_batch(model, 3)
    maps, *answers = (Noise(number).normal("m", batch.ids, (1, 8, 8)) for number in range(4))
    answers[1][0, 0, 2, 2] = torch.nan
    answers[2][1] = 3.5
    context, _ = scripted(*answers)
    scores = SanityParameters()(model, batch, maps, context)
    missing = [[False, True, False], [False, False, True], [False, False, False]]
    for name, function in (("spearman", spearman), ("abs_spearman", abs_spearman), ("ssim", ssim)):
        assert scores.curves[name].isnan().tolist() == missing
        assert scores.measures[name].isnan().tolist() == [True, True, False]
        expected = [function(maps[2:], answer[2:]).item() for answer in answers]
        assert scores.curves[name][2].tolist() == expected
        assert scores.measures[name][2].item() == pytest.approx(sum(expected) / 3)


def test_a_constant_map_has_no_measure() -> None:
    model = small_classifier()
    batch = make_batch(model, 2)
    maps = Noise().normal("m", batch.ids, (1, 8, 8))
    maps[0] = 0.5
    explain = explaining(Gradient())
    for metric in (SanityParameters(), SanityLabels()):
        scores = metric(model, batch, maps, Context(explain=explain, permuted=model))
        assert all(values.isnan().tolist() == [True, False] for values in scores.measures.values())


@pytest.mark.parametrize("target", ["fixed", "argmax"])
def test_the_method_explains_the_class_that_was_asked_for(target: str) -> None:
    model = small_classifier()
    batch = make_batch(model)
    maps = Noise().normal("m", batch.ids, (1, 8, 8))
    model.rows = 2
    context, asked = scripted(maps, maps, maps)
    # Wide draws, so that the predictions of the random models differ from image to image.
    metric = SanityParameters.model_validate({"target": target, "deviation": 1.0})
    metric(model, batch, maps, context)
    assert len({id(used) for used, _ in asked}) == 3
    for used, given in asked:
        expected = used(batch.images).argmax(1) if target == "argmax" else batch.targets
        assert torch.equal(given.targets, expected) and given.ids == batch.ids
    if target == "argmax":
        assert any(not torch.equal(given.targets, batch.targets) for _, given in asked)


def test_random_models_that_are_at_hand_are_used() -> None:
    model = small_classifier()
    batch = make_batch(model)
    maps = Noise().normal("m", batch.ids, (1, 8, 8))
    asked: list[Randomisation] = []
    others = [Classifier(settle(small_network()), classes=5) for _ in range(2)]
    explain = explaining(Gradient())

    def randomised(used: Classifier, randomisation: Randomisation) -> list[Classifier]:
        assert used is model
        asked.append(randomisation)
        return others

    metric = SanityParameters(order="independent", initialiser="own", statistics="reset", by="layer", repeats=3)
    scores = metric(model, batch, maps, Context(explain=explain, randomised=randomised))
    settings = {"order": "independent", "initialiser": "own", "statistics": "reset", "by": "layer"}
    assert asked == [Randomisation.model_validate({**settings, "repeat": repeat}) for repeat in range(3)]
    expected = spearman(maps, explain(others[0], batch))
    torch.testing.assert_close(scores.curves["spearman"], expected[:, None].expand(5, 2))


def test_the_same_models_come_from_a_job_s_noise() -> None:
    model = small_classifier()
    batch = make_batch(model)
    explain = explaining(Gradient())
    maps = explain(model, batch)
    noise = Noise(9)
    alone = SanityParameters()(model, batch, maps, Context(noise=noise, explain=explain))
    models = RandomisedModels(model, SanityParameters().randomisation(0), noise, 8, 8)
    shared = SanityParameters()(model, batch, maps, Context(explain=explain, randomised=lambda *_: models))
    assert all(torch.equal(alone.curves[name], curve) for name, curve in shared.curves.items())
    other = SanityParameters()(model, batch, maps, Context(noise=Noise(8), explain=explain))
    assert not torch.equal(alone.curves["spearman"], other.curves["spearman"])


def test_the_cost_is_a_map_a_step_and_repeat() -> None:
    method = Cost(2, 1)
    assert SanityParameters().cost(SETTING, method) == Cost(6, 3)
    assert SanityParameters(repeats=4, target="argmax").cost(SETTING, method) == Cost(36, 12)
    layered = Setting(5, 8, 8, blocks=("a",), layers=("a", "b"))
    assert SanityParameters(by="layer").cost(layered, method) == Cost(4, 2)
    assert SanityLabels().cost(SETTING, method) == method


def test_argmax_takes_one_forward_more_a_step() -> None:
    model = small_classifier()
    batch = make_batch(model)
    maps = Noise().normal("m", batch.ids, (1, 8, 8))
    models = RandomisedModels(model, Randomisation(), Noise(), 8, 8)
    seen: list[int] = []
    for one in models:
        one.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    context = Context(explain=lambda *_: maps, randomised=lambda *_: models)
    metric = SanityParameters(target="argmax")
    metric(model, batch, maps, context)
    assert sum(seen) / 5 == metric.cost(SETTING).forwards == 3


def test_labels_are_checked_on_the_network_of_permuted_labels() -> None:
    model, permuted = small_classifier(), Classifier(settle(small_network(), 2.0), classes=5)
    batch = make_batch(model)
    explain = explaining(GradientXInput())
    maps, other = explain(model, batch), explain(permuted, batch)
    scores = SanityLabels()(model, batch, maps, Context(explain=explain, permuted=permuted))
    assert not scores.curves
    for row in range(5):
        for name, value in slow_similarities(maps[row], other[row]).items():
            assert scores.measures[name][row].item() == pytest.approx(value, abs=1e-5)
    same = SanityLabels()(model, batch, maps, Context(explain=explain, permuted=model))
    assert all(values.tolist() == pytest.approx([1] * 5) for values in same.measures.values())


def test_the_similarities_asked_for_are_given() -> None:
    model = small_classifier()
    batch = make_batch(model)
    explain = explaining(Gradient())
    metric = SanityLabels.model_validate({"similarity": ("ssim",)}, strict=True)
    scores = metric(model, batch, explain(model, batch), Context(explain=explain, permuted=model))
    assert list(scores.measures) == ["ssim"]
    with pytest.raises(ValueError, match="at least 1"):
        SanityParameters.model_validate({"similarity": ()})


def test_what_is_missing_is_named() -> None:
    model = small_classifier()
    batch = make_batch(model)
    maps = Noise().normal("m", batch.ids, (1, 8, 8))
    with pytest.raises(ValueError, match="sanity_labels: needs the network trained on permuted labels"):
        SanityLabels()(model, batch, maps, Context(explain=explaining(Gradient())))
    for metric in (SanityLabels(), SanityParameters()):
        with pytest.raises(ValueError, match="only the maps are known, not their method"):
            metric(model, batch, maps, Context(permuted=model))


def test_a_batch_norm_network_is_left_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    model = Classifier(settle(network), classes=3)
    batch = make_batch(model)
    explain = explaining(Gradient())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    metric = SanityParameters(initialiser="own", statistics="reset")
    scores = metric(model, batch, explain(model, batch), Context(explain=explain))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(math.isnan(value) for value in scores.measures["ssim"].tolist())

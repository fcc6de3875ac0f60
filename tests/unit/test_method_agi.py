"""AGI against closed forms, Algorithms 1 and 2, and a slow account of what the published code does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from small_models import linear_classifier, make_batch, settle, small_classifier, small_network
from torch import Tensor

from pipeline.contracts import Batch, Setting
from pipeline.methods import AGI
from pipeline.models import Classifier
from pipeline.noise import Noise

SETTING = Setting(6, 8, 8)


def slow_algorithm_1(
    model: Classifier, image: Tensor, target: int, label: int, steps: int, size: float
) -> tuple[Tensor, Tensor]:
    """Algorithm 1 of the paper, one step at a time: the map, and where the path ends."""
    total = torch.zeros_like(image)
    x, taken = image.clone(), 0
    while model(x[None]).argmax().item() != label and taken < steps:
        x = x.requires_grad_(True)
        probability = F.softmax(model(x[None]), 1)[0]
        toward = torch.autograd.grad(probability[label], x, retain_graph=True)[0]
        away = torch.autograd.grad(probability[target], x)[0]
        step = size * toward.sign()
        total = total - away * step
        x = (x + step).detach()
        taken += 1
    return total.detach(), x.detach()


def slow_published(
    model: Classifier, image: Tensor, target: int, label: int, steps: int, size: float, twice: bool
) -> tuple[Tensor, int]:
    """What the published code does for one false class: the map, and the steps."""
    total, here, taken = torch.zeros_like(image), image, 0
    while taken < steps:
        x = here.clone().requires_grad_(True)
        output = model(x[None])[0].double()
        if twice:
            output = output.softmax(0)
        if int(output.argmax()) == label:
            break
        probability = output.softmax(0)
        (toward,) = torch.autograd.grad(probability[label], x, retain_graph=True)
        (own,) = torch.autograd.grad(probability[target], x)
        here = torch.clamp(image + size * toward.sign(), 0, 1)
        total = total - own * (here - image)
        taken += 1
    return total, taken


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_paper_is_algorithms_1_and_2_with_the_same_draws(rows: int) -> None:
    model = small_classifier(classes=6)
    model.rows = rows
    batch = make_batch(model, 4)
    found = AGI(classes=3, steps=5)(model, batch, Noise(7))
    for row, (sample, target) in enumerate(zip(batch.ids, batch.targets.tolist(), strict=True)):
        others = [label for label in range(6) if label != target]
        false = Noise(7).choice("agi", sample, others, 3)
        expected = sum(slow_algorithm_1(model, batch.images[row], target, label, 5, 0.05)[0] for label in false)
        torch.testing.assert_close(found[row], expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.parametrize("softmax", ["once", "twice"])
def test_official_is_what_the_published_code_does(softmax: str, rows: int) -> None:
    model = small_classifier(classes=6)
    model.rows = rows
    batch = make_batch(model, 4)
    method = AGI.model_validate({"protocol": "official", "classes": 3, "steps": 6, "softmax": softmax})
    explanation = method.explain(model, batch, Noise(7))
    for row, target in enumerate(batch.targets.tolist()):
        false = [label for label in range(0, 5, 2) if label != target]
        assert explanation.columns["false_classes"][row] == false
        image = batch.images[row]
        slow = [slow_published(model, image, target, label, 6, 0.05, softmax == "twice") for label in false]
        assert explanation.columns["steps"][row] == [taken for _, taken in slow]
        expected = torch.stack([one for one, _ in slow]).sum(0)
        scale = expected.abs().max()
        torch.testing.assert_close(explanation.maps[row] / scale, expected / scale, atol=1e-4, rtol=0)


def test_on_a_linear_model_every_step_adds_the_same() -> None:
    model = linear_classifier()
    batch = make_batch(model, size=4)
    target = (batch.targets[0].item() + 1) % 3
    batch = Batch(batch.images, torch.full_like(batch.targets, target), batch.ids)
    weight = model.network[1].weight.view(3, 3, 4, 4)
    for false in {0, 1, 2} - {target}:
        straight = AGI(classes=(false,), output="logit", steps=9, step_size=0.01)
        explanation = straight.explain(model, batch, Noise())
        anew = AGI(classes=(false,), output="logit", steps=9, step_size=0.01, protocol="official")
        published = anew.explain(model, batch, Noise())
        step = 0.01 * weight[false].sign()
        for row, image in enumerate(batch.images):
            (count,), (again,) = explanation.columns["steps"][row], published.columns["steps"][row]
            if row not in explanation.failed:
                torch.testing.assert_close(explanation.maps[row], -count * weight[target] * step)
                kept = (image + step).clamp(0, 1) - image
                torch.testing.assert_close(published.maps[row], -again * weight[target] * kept)


def test_the_map_sums_to_the_change_of_the_output_along_the_path() -> None:
    # Weights so small that no class is certain: the change is then far above rounding.
    model = Classifier(settle(small_network(6), 1.5), classes=6)
    batch = make_batch(model, 2)
    changes = []
    for label in range(6):
        explanation = AGI(classes=(label,), steps=20, step_size=0.0001).explain(model, batch, Noise())
        for row, target in enumerate(batch.targets.tolist()):
            if row in explanation.failed:
                continue
            end = slow_algorithm_1(model, batch.images[row], target, label, 20, 0.0001)[1]
            with torch.no_grad():
                before, after = F.softmax(model(torch.stack([batch.images[row], end])).double(), 1)[:, target]
            changes.append((before - after).item())
            assert explanation.maps[row].sum().item() == pytest.approx(changes[-1], rel=0.01, abs=1e-6)
    assert len(changes) == 10 and min(abs(change) for change in changes) > 1e-4


def test_individual_maps_of_named_classes_add_up_to_that_of_all_of_them() -> None:
    model = small_classifier(classes=6)
    batch = make_batch(model, 4)
    batch = Batch(batch.images, torch.zeros_like(batch.targets), batch.ids)
    named = [AGI(classes=(label,), steps=5).explain(model, batch, Noise()) for label in (2, 4, 5)]
    total = sum(one.maps.nan_to_num() for one in named)
    together = AGI(classes=(2, 4, 5), steps=5)(model, batch, Noise())
    torch.testing.assert_close(together, total, atol=1e-6, rtol=1e-4)


def test_a_named_class_that_is_the_target_is_skipped_and_alone_it_is_a_failure() -> None:
    model = small_classifier(classes=6)
    images = make_batch(model, 2).images
    batch = Batch(images, torch.tensor([1, 3]), ("a", "b"))
    both = AGI(classes=(1, 3), steps=5).explain(model, batch, Noise())
    assert both.columns["false_classes"] == [[3], [1]] and not both.failed
    alone = AGI(classes=(3,), steps=5).explain(model, batch, Noise())
    assert dict(alone.failed) == {1: "there is no false class but the target, so there is no path to walk"}
    assert alone.maps[1].isnan().all()
    torch.testing.assert_close(alone.maps[0], both.maps[0])


def test_a_model_of_one_class_leaves_nothing_to_walk() -> None:
    model = small_classifier(classes=1)
    assert set(AGI().explain(model, make_batch(model, 2), Noise()).failed) == {0, 1}


def test_a_false_class_that_is_predicted_already_leaves_nothing_to_walk() -> None:
    model = small_classifier(classes=6)
    batch = make_batch(model, 1)
    predicted = int(batch.targets[0])
    other = Batch(batch.images, torch.tensor([(predicted + 1) % 6]), batch.ids)
    explanation = AGI(classes=(predicted,)).explain(model, other, Noise())
    assert explanation.columns["steps"] == [[0]] and "is predicted already" in explanation.failed[0]


@pytest.mark.parametrize(("protocol", "farthest"), [("paper", 0.05 * 6), ("official", 0.05)])
def test_official_paths_stay_near_the_image_and_in_range_and_papers_do_not(protocol: str, farthest: float) -> None:
    model = small_classifier(classes=6)
    batch = make_batch(model, 1)
    seen: list[Tensor] = []
    handle = model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    AGI.model_validate({"protocol": protocol, "steps": 7})(model, batch, Noise())
    handle.remove()
    walked = torch.cat(seen)
    assert (walked - batch.images).abs().max().item() == pytest.approx(farthest, abs=1e-6)
    assert bool(((walked >= 0) & (walked <= 1)).all()) == (protocol == "official")


def test_paths_end_where_the_false_class_is_predicted() -> None:
    # Two classes on a line: from x = 0.1 the other class is reached after three steps of 0.05.
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))
    with torch.no_grad():
        network[2].weight.copy_(torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]))
        network[2].bias.copy_(torch.tensor([0.36, -0.36]))
    model = Classifier(network, classes=2)
    batch = Batch(torch.full((1, 3, 1, 1), 0.0), torch.tensor([0]), ("a",))
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    explanation = AGI(steps=20).explain(model, batch, Noise())
    # Class 1 wins as soon as x > 0.12, which 0.15 is.
    assert [round(float(x.mean()), 2) for x in seen] == [0.0, 0.05, 0.1, 0.15]
    assert explanation.columns["steps"] == [[3]]


def test_strided_classes_are_those_of_the_published_code() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 1000))
    model = Classifier(network, classes=1000)
    batch = Batch(torch.full((2, 3, 1, 1), 0.5), torch.tensor([100, 7]), ("a", "b"))
    columns = AGI(protocol="official", steps=1).explain(model, batch, Noise()).columns
    every_fiftieth = list(range(0, 1000, 50))
    assert columns["false_classes"] == [[one for one in every_fiftieth if one != 100], every_fiftieth]
    strided = AGI(choice="strided", classes=5, steps=1).explain(model, batch, Noise()).columns
    assert strided["false_classes"][1] == [0, 200, 400, 600, 800]
    sampled = AGI(protocol="official", choice="sampled", steps=1).explain(model, batch, Noise()).columns
    assert sampled["false_classes"] == AGI(steps=1).explain(model, batch, Noise()).columns["false_classes"]


@pytest.mark.parametrize("protocol", ["paper", "official"])
def test_without_a_number_every_false_class_is_taken_where_there_are_20_or_fewer(protocol: str) -> None:
    method = AGI.model_validate({"protocol": protocol})
    assert method.cost(Setting(10, 32, 32)).forwards == 9 * 20
    assert method.cost(Setting(1000, 224, 224)).forwards == 20 * 20
    model = small_classifier(classes=6)
    batch = make_batch(model, 3)
    taken = method.explain(model, batch, Noise()).columns["false_classes"]
    expected = [[label for label in range(6) if label != target] for target in batch.targets.tolist()]
    assert [sorted(labels) for labels in taken] == expected


def test_cost_of_named_classes_is_one_path_each() -> None:
    assert AGI(classes=(3, 4), steps=5).cost(SETTING).backwards == 20


def test_it_objects_to_classes_that_the_model_does_not_have() -> None:
    model = small_classifier(classes=6)
    assert AGI(classes=5).objection(model, SETTING) is None
    assert AGI(classes=6).objection(model, SETTING) == "agi: classes is 6, the model has 5 false classes"
    assert AGI(classes=(5,)).objection(model, SETTING) is None
    assert AGI(classes=(2, 6)).objection(model, SETTING) == "agi: there is no class 6, the model has 0 to 5"


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"classes": [3, 3]}, "classes names a false class twice"),
        ({"classes": [3], "choice": "sampled"}, "choice has nothing to choose"),
        ({"classes": []}, "at least 1 item"),
        ({"classes": 0}, "greater than 0"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(parameters: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        AGI.model_validate(parameters)

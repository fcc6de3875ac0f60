"""Infidelity against loops, Captum and closed forms on a linear model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from captum.metrics import infidelity as captum_infidelity
from small_models import linear_classifier, make_batch, small_classifier
from torch import Tensor

from pipeline.contracts import Batch, Context, SharedWork
from pipeline.methods import Gradient, Occlusion
from pipeline.metrics import Infidelity
from pipeline.metrics.infidelity import PerturbedOutputs
from pipeline.metrics.perturbation import gaussian_changes, squares
from pipeline.models import Classifier
from pipeline.noise import Noise

Case = tuple[Classifier, Batch, dict[str, Tensor]]

NOISE = Noise(7)
CONTEXT = Context(noise=NOISE)


@pytest.fixture
def case() -> tuple[Classifier, Batch, dict[str, Tensor]]:
    """A model, three images, and maps with channels that know something of what each change does."""
    model = small_classifier()
    batch = make_batch(model, 3, size=10)
    drops = Occlusion(patch=3, stride=1, fill="black", output="logit")(model, batch, NOISE)
    gradient = Gradient()(model, batch, NOISE)
    noise = 0.02 * Noise(3).normal("map", batch.ids, (3, 10, 10))
    return model, batch, {"square": drops * torch.tensor([0.5, 0.3, 0.2]).view(3, 1, 1) + noise, "gaussian": gradient}


def slow_square(edges: Tensor, image: Tensor, colour: Tensor) -> tuple[Tensor, Tensor]:
    """The changed image, and which pixels were changed, by loops."""
    top, bottom, left, right = edges.tolist()
    changed, inside = image.clone(), torch.zeros(1, *image.shape[1:])
    for row in range(top, bottom):
        for column in range(left, right):
            changed[:, row, column] = colour
            inside[0, row, column] = 1
    return changed, inside


def slow_infidelity(pairs: list[tuple[float, float]], scaled: bool) -> float:
    """Mean squared difference of what was foretold and what came, by loops."""
    beta = 1.0
    if scaled:
        products = sum(foretold * drop for foretold, drop in pairs)
        beta = max(0.0, products / sum(foretold**2 for foretold, _ in pairs))
    return sum((beta * foretold - drop) ** 2 for foretold, drop in pairs) / len(pairs)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("output", ["logit", "probability"])
@pytest.mark.parametrize("fill", ["black", "mean"])
def test_squares_are_those_of_the_slow_protocol(case: Case, fill: str, output: str, normalize: bool) -> None:
    model, batch, found_maps = case
    maps = found_maps["square"]
    summed = maps.sum(1, keepdim=True)
    metric = Infidelity(draws=12, largest=0.5, fill=fill, output=output, normalize=normalize)
    found = metric(model, batch, summed, CONTEXT).measures["infidelity"]
    edges = squares(NOISE, batch.ids, 12, 0.5, 10, 10)
    colour = torch.zeros(3) if fill == "black" else model.mean[0, :, 0, 0]

    def value(image: Tensor, target: int) -> float:
        logits = model(image[None])[0]
        return (F.softmax(logits, 0) if output == "probability" else logits)[target].item()

    for row, target in enumerate(batch.targets.tolist()):
        pairs = []
        for draw in range(12):
            changed, inside = slow_square(edges[row, draw], batch.images[row], colour)
            drop = value(batch.images[row], target) - value(changed, target)
            pairs.append(((inside * maps[row]).sum().item(), drop))
        assert found[row].item() == pytest.approx(slow_infidelity(pairs, normalize), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("perturbation", ["square", "gaussian"])
def test_it_is_captums_of_a_map_with_channels(case: Case, perturbation: str, normalize: bool) -> None:
    # Captum multiplies a map with channels by a change with channels; the sum over channels is enough for that.
    model, batch, found_maps = case
    maps, draws = found_maps[perturbation], 15
    metric = Infidelity(perturbation=perturbation, draws=draws, largest=0.5, normalize=normalize)
    found = metric(model, batch, maps.sum(1, keepdim=True), CONTEXT).measures["infidelity"]

    def perturb(images: Tensor) -> tuple[Tensor, Tensor]:
        if perturbation == "gaussian":
            change = gaussian_changes(NOISE, batch, torch.arange(3 * draws), draws, 0.1).expand_as(images)
            return change, images - change
        edges = squares(NOISE, batch.ids, draws, 0.5, 10, 10).flatten(0, 1)
        pairs = [slow_square(one, image, torch.zeros(3)) for one, image in zip(edges, images, strict=True)]
        return torch.stack([inside.expand(3, -1, -1) for _, inside in pairs]), torch.stack([one for one, _ in pairs])

    expected = captum_infidelity(
        model, perturb, batch.images, maps, target=batch.targets, n_perturb_samples=draws, normalize=normalize
    )
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-3)


def test_a_linear_models_gradient_foretells_noise_and_its_contributions_foretell_squares() -> None:
    model = linear_classifier()
    batch = make_batch(model, 3, size=4)
    weights = model.network[1].weight[batch.targets].view(3, 3, 4, 4)
    gradient = weights.sum(1, keepdim=True)
    contribution = (weights * batch.images).sum(1, keepdim=True)
    zero = torch.zeros(3)
    for normalize in (True, False):
        noisy = Infidelity(perturbation="gaussian", normalize=normalize)
        square = Infidelity(perturbation="square", largest=0.8, normalize=normalize)
        for metric, right, wrong in ((noisy, gradient, contribution), (square, contribution, gradient)):
            best = metric(model, batch, right, CONTEXT).measures["infidelity"]
            other = metric(model, batch, wrong, CONTEXT).measures["infidelity"]
            torch.testing.assert_close(best, zero, atol=1e-10, rtol=0)
            assert (other > 1e-3).all()


def test_a_linear_models_expected_infidelity_under_noise_is_that_of_the_formula() -> None:
    # Iᵀ(Φ − w) has the variance σ² ‖Φ − w‖² where I is one value a pixel and w the gradient summed over channels.
    model = linear_classifier()
    batch = make_batch(model, 2, size=4)
    gradient = model.network[1].weight[batch.targets].view(2, 3, 4, 4).sum(1, keepdim=True)
    maps = gradient + Noise(2).normal("map", batch.ids, (1, 4, 4))
    metric = Infidelity(perturbation="gaussian", sigma=0.3, draws=20_000, normalize=False)
    found = metric(model, batch, maps, CONTEXT).measures["infidelity"]
    torch.testing.assert_close(found, 0.09 * (maps - gradient).square().sum((1, 2, 3)), rtol=0.04, atol=0)


@pytest.mark.parametrize("perturbation", ["square", "gaussian"])
def test_the_scale_of_a_map_does_not_matter_but_its_sign_does(case: Case, perturbation: str) -> None:
    model, batch, maps = case
    summed = maps[perturbation].sum(1, keepdim=True)
    metric, raw = (Infidelity(perturbation=perturbation, normalize=normalize) for normalize in (True, False))
    found = metric(model, batch, summed, CONTEXT).measures["infidelity"]
    for scale in (1e-8, 30.0):
        scaled = metric(model, batch, scale * summed, CONTEXT).measures["infidelity"]
        torch.testing.assert_close(scaled, found, rtol=1e-4, atol=0)
        assert not torch.allclose(raw(model, batch, scale * summed, CONTEXT).measures["infidelity"], found, rtol=1e-2)
    nothing = metric(model, batch, torch.zeros_like(summed), CONTEXT).measures["infidelity"]
    turned = metric(model, batch, -summed, CONTEXT).measures["infidelity"]
    assert (found < nothing).all() and torch.equal(turned, nothing)


def test_squares_are_drawn_evenly_from_all_that_fit() -> None:
    edges = squares(NOISE, ["a", "b"], 30_000, 0.75, 4, 5)
    counts: dict[tuple[int, ...], int] = {}
    for one in edges.flatten(0, 1).tolist():
        counts[tuple(one)] = counts.get(tuple(one), 0) + 1
    every = {
        (top, top + side, left, left + side)
        for side in (1, 2, 3)
        for top in range(4 - side + 1)
        for left in range(5 - side + 1)
    }
    assert counts.keys() == every and len(every) == 20 + 12 + 6
    # Six standard deviations of a count.
    expected = 60_000 / len(every)
    assert max(abs(count - expected) for count in counts.values()) < 6 * expected**0.5


@pytest.mark.parametrize(("share", "size", "largest"), [(0.36, 28, 10), (0.36, 224, 80), (0.29, 100, 29), (0.01, 8, 1)])
def test_the_largest_square_is_a_share_of_the_shorter_side(share: float, size: int, largest: int) -> None:
    edges = squares(NOISE, ["a"], 20_000, share, size, size + 3)
    assert int((edges[..., 1] - edges[..., 0]).max()) == largest


@pytest.mark.parametrize("perturbation", ["square", "gaussian"])
def test_more_draws_begin_with_the_same(case: Case, perturbation: str) -> None:
    model, batch, _ = case
    few, more = (
        PerturbedOutputs(perturbation=perturbation, draws=draws)(model, batch, NOISE)["outputs"] for draws in (3, 8)
    )
    torch.testing.assert_close(more[:, :3], few)
    assert len(more.unique()) > 20


def test_the_changed_images_are_shown_to_the_model_once_for_all_maps(case: Case) -> None:
    model, batch, maps = case
    kept: dict[SharedWork, object] = {}

    def share(work: SharedWork, used: Classifier, images: Batch) -> dict[str, Tensor]:
        if work not in kept:
            kept[work] = work(used, images, NOISE)
        return kept[work]  # type: ignore[return-value]

    shared = Context(noise=NOISE, share=share)
    for perturbation in ("square", "gaussian"):
        metric = Infidelity(perturbation=perturbation, draws=6)
        for map_ in (maps["square"][:, :1], maps["gaussian"][:, :1]):
            expected = metric(model, batch, map_, CONTEXT).measures["infidelity"]
            assert torch.equal(metric(model, batch, map_, shared).measures["infidelity"], expected)
    assert sorted(work.name for work in kept) == ["perturbed_outputs", "perturbed_outputs", "reference"]


@pytest.mark.parametrize("perturbation", ["square", "gaussian"])
@pytest.mark.parametrize("rows", [1, 4, 100])
def test_a_score_does_not_depend_on_the_images_a_forward(case: Case, perturbation: str, rows: int) -> None:
    model, batch, found_maps = case
    maps = found_maps[perturbation][:, :1]
    metric = Infidelity(perturbation=perturbation, draws=7)
    expected = metric(model, batch, maps, CONTEXT).measures["infidelity"]
    model.rows = rows
    alone = [
        metric(model, Batch(batch.images[row], batch.targets[row], batch.ids[row]), maps[row], CONTEXT)
        for row in (slice(0, 2), slice(2, 3))
    ]
    found = torch.cat([one.measures["infidelity"] for one in alone])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-8)

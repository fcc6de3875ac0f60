"""Agreement with Quantus where it means the same; what is drawn at random is handed to both sides.

It means something else, and is not compared, where the blocks of its Infidelity stay black one after the other, its
PointingGame counts an image without an object as a hit, RegionPerturbation changes patches instead of pixels, the mean
of its MPRT takes in the unchanged model, and EfficientMPRT asks for the complexity of a map.
"""

from __future__ import annotations

import copy
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from small_models import make_batch, settle, small_network
from torch import Tensor

from pipeline.contracts import Batch, Context
from pipeline.methods import Gradient, GradientXInput
from pipeline.metrics import Infidelity, Localization, MaxSensitivity, PerturbationCurve, Pointing, SanityParameters
from pipeline.metrics.perturbation import gaussian_changes, squares, squares_inside
from pipeline.metrics.similarity import abs_spearman, spearman, ssim
from pipeline.models import Classifier, ModelConfig, load_classifier
from pipeline.models.randomise import Randomisation, RandomisedModels
from pipeline.noise import Noise
from pipeline.reduction import reduce_channels

quantus = pytest.importorskip("quantus")

NOISE = Noise(5)
QUIET: dict[str, Any] = {"normalise": False, "disable_warnings": True}


@dataclass(frozen=True)
class Case:
    """Images of a model with their maps.

    Attributes:
        step: pixels from point to point of a curve. Quantus counts a pixel's three channels, and the pixels of an image
            have to be a multiple of that.
        block: side of the squares that Quantus's infidelity goes through; as many changes as squares fit.
    """

    model: Classifier
    batch: Batch
    maps: Tensor
    step: int
    block: int

    @property
    def points(self) -> int:
        """Of a curve, without the unchanged image."""
        return self.maps[0].numel() // self.step


def gradient_x_input(model: Classifier, batch: Batch) -> Tensor:
    return reduce_channels(GradientXInput()(model, batch, NOISE), "sum")


def trained_case(folder: Path) -> tuple[Classifier, Batch]:
    """Photographs of CIFAR-10, cut to 30 × 30, and a network that knows them."""
    weights = str(folder / "weights" / "cifar10_resnet20.safetensors")
    model = load_classifier(ModelConfig(name="cifar_resnet20", weights=weights), classes=10)
    cells = pq.read_table(folder / "cifar10" / "test.parquet")["image"].slice(0, 6).to_pylist()
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(cell["bytes"])))[1:-1, 1:-1] for cell in cells])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        return model, Batch(images, model(images).argmax(1), tuple(map(str, range(len(images)))))


@pytest.fixture(scope="module", params=["small", "trained"])
def case(request: pytest.FixtureRequest) -> Case:
    if request.param == "small":
        # Smaller weights than `small_classifier` has: its probabilities are all but one at this size.
        model = Classifier(settle(small_network()), classes=5, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
        batch = make_batch(model, 6, size=12)
        return Case(model, batch, gradient_x_input(model, batch), step=4, block=3)
    model, batch = trained_case(request.getfixturevalue("shared_data"))
    return Case(model, batch, gradient_x_input(model, batch), step=25, block=6)


def asked(metric: Any, case: Case, maps: Tensor, **further: Any) -> NDArray[np.float64]:
    """What a metric of Quantus says of some maps."""
    further = {"softmax": False, **further}
    images, targets = case.batch.images.numpy(), case.batch.targets.numpy()
    found = metric(case.model, images, targets, maps.numpy(), channel_first=True, **further)
    return np.array(found, dtype=float)


@pytest.mark.parametrize("output", ["probability", "logit"])
@pytest.mark.parametrize("order", ["most_relevant_first", "least_relevant_first"])
def test_a_perturbation_curve_is_that_of_pixel_flipping(case: Case, order: str, output: str) -> None:
    curve = PerturbationCurve.model_validate({"order": order, "output": output, "fill": "black", "step": case.step})
    found = curve(case.model, case.batch, case.maps).curves["auc"]
    theirs = quantus.PixelFlipping(features_in_step=3 * case.step, perturb_baseline=0.0, **QUIET)
    maps = case.maps if order == "most_relevant_first" else -case.maps
    expected = asked(theirs, case, maps, softmax=output == "probability")
    assert found.shape == (6, case.points + 1) and np.ptp(expected) > 0.05
    # Quantus begins with the first pixels gone.
    np.testing.assert_allclose(found[:, 1:], expected, atol=1e-5, rtol=1e-4)


def test_the_area_under_a_curve_is_that_of_pixel_flipping(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)  # gone from NumPy, and Quantus calls it
    fractions = tuple(point / case.points for point in range(1, case.points + 1))
    curve = PerturbationCurve(fill="black", fractions=fractions)
    found = curve(case.model, case.batch, case.maps).measures["auc"]
    theirs = quantus.PixelFlipping(
        features_in_step=3 * case.step, perturb_baseline=0.0, return_auc_per_sample=True, **QUIET
    )
    # In Quantus the points are one apart.
    expected = asked(theirs, case, case.maps, softmax=True) / (case.points - 1)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("perturbation", ["square", "gaussian"])
def test_infidelity(case: Case, perturbation: str) -> None:
    model, batch = case.model, case.batch
    height, width = batch.images.shape[-2:]
    draws = (height // case.block) * (width // case.block)
    gradient = Gradient()(model, batch, NOISE)
    if perturbation == "square":
        edges = squares(NOISE, batch.ids, draws, 0.5, height, width).flatten(0, 1)
        inside = squares_inside(edges, height, width).view(len(batch), draws, 1, height, width)
        changed = torch.where(inside, 0.0, batch.images[:, None])
        # Quantus multiplies a map by the change of the image, which makes a gradient a contribution.
        maps = (gradient * batch.images).sum(1, keepdim=True)
    else:
        noise = gaussian_changes(NOISE, batch, torch.arange(len(batch) * draws), draws, 0.1)
        changed = batch.images[:, None] - noise.view(len(batch), draws, 1, height, width)
        maps = gradient.sum(1, keepdim=True)
    ours = Infidelity.model_validate(
        {"perturbation": perturbation, "largest": 0.5, "draws": draws, "normalize": False, "output": "logit"}
    )
    found = ours(model, batch, maps, Context(noise=NOISE)).measures["infidelity"]
    handed_out = iter(changed.flatten(2).numpy().swapaxes(0, 1))
    theirs = quantus.Infidelity(
        perturb_func=lambda **_: next(handed_out), perturb_patch_sizes=[case.block], n_perturb_samples=1, **QUIET
    )
    np.testing.assert_allclose(found, asked(theirs, case, gradient), rtol=1e-3)
    assert next(handed_out, None) is None


def test_max_sensitivity(case: Case) -> None:
    model, batch = case.model, case.batch
    asked_for: list[NDArray[np.float32]] = []

    def explain(used: Classifier, images: Batch) -> Tensor:
        asked_for.extend(images.images.numpy())
        return gradient_x_input(used, images)

    def explain_func(model: Classifier, inputs: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float32]:
        images = Batch(torch.from_numpy(inputs), torch.from_numpy(targets), batch.ids)
        return gradient_x_input(model, images).numpy()

    metric = MaxSensitivity(radius=0.05, draws=4)
    found = metric(model, batch, case.maps, Context(noise=NOISE, explain=explain)).measures["sensitivity"]
    handed_out = iter(np.stack(asked_for).reshape(4, len(batch), -1))
    theirs = quantus.MaxSensitivity(nr_samples=4, perturb_func=lambda **_: next(handed_out), **QUIET)
    np.testing.assert_allclose(found, asked(theirs, case, case.maps, explain_func=explain_func), rtol=1e-3)
    assert next(handed_out, None) is None


def discs(case: Case) -> Tensor:
    """Round objects, (6, 1, H, W) bool: around the largest value of a map, or not far from it."""
    size = case.maps.shape[-1]
    largest = case.maps.flatten(1).argmax(1).view(-1, 1, 1, 1)
    away = torch.tensor([0, 2, 5] * 2).view(-1, 1, 1, 1)
    rows, columns = torch.arange(size).view(-1, 1), torch.arange(size)
    distance = (rows - largest // size).square() + (columns - (largest + away) % size).square()
    return distance < 9


def test_pointing_without_a_tolerance_is_the_pointing_game(case: Case) -> None:
    regions = discs(case)
    batch = Batch(case.batch.images, case.batch.targets, case.batch.ids, regions={"object": regions})
    found = Pointing(tolerance=0)(case.model, batch, case.maps).measures["hit"]
    expected = asked(quantus.PointingGame(**QUIET), case, case.maps, s_batch=regions.numpy())
    assert found.tolist() == expected.tolist() and set(expected) == {0, 1}


def test_localization_is_relevance_mass_and_rank_accuracy(case: Case) -> None:
    regions = discs(case)
    batch = Batch(case.batch.images, case.batch.targets, case.batch.ids, regions={"object": regions})
    found = Localization()(case.model, batch, case.maps).measures
    # Quantus takes negative values into the mass, ours leaves them out.
    mass = asked(quantus.RelevanceMassAccuracy(**QUIET), case, case.maps.clamp(min=0), s_batch=regions.numpy())
    rank = asked(quantus.RelevanceRankAccuracy(**QUIET), case, case.maps, s_batch=regions.numpy())
    np.testing.assert_allclose(found["mass"], mass, rtol=1e-5)
    np.testing.assert_allclose(found["rank"], rank, rtol=1e-6)
    assert len(set(mass)) == 6 and len(set(rank)) > 2


def other_maps(case: Case) -> Tensor:
    """Maps of the same images that are somewhat like those of the case."""
    return reduce_channels(Gradient()(case.model, case.batch, NOISE), "abs_sum") + case.maps


def test_rank_correlations(case: Case) -> None:
    first, second = case.maps, other_maps(case)
    theirs = quantus.similarity_func.correlation_spearman
    flat, other = first.flatten(1).numpy(), second.flatten(1).numpy()
    np.testing.assert_allclose(spearman(first, second), theirs(flat, other, batched=True), atol=1e-6)
    np.testing.assert_allclose(abs_spearman(first, second), theirs(abs(flat), abs(other), batched=True), atol=1e-6)


def test_structural_similarity_of_maps_that_reach_from_minus_one_to_one(case: Case) -> None:
    # Quantus takes the range of both maps together: ours where the one's peak is up and the other's down.
    def scaled(maps: Tensor, peak: float) -> Tensor:
        flat = maps.flatten(1)
        largest = flat.gather(1, flat.abs().argmax(1, keepdim=True))
        return maps * peak / largest.view(-1, 1, 1, 1)

    first, second = scaled(case.maps, 1.0), scaled(other_maps(case), -1.0)
    expected = quantus.similarity_func.ssim(first[:, 0].double().numpy(), second[:, 0].double().numpy(), batched=True)
    np.testing.assert_allclose(ssim(first, second), expected, atol=1e-5)


@pytest.mark.parametrize("similarity", ["spearman", "abs_spearman"])
@pytest.mark.parametrize("order", ["cascading", "independent"])
def test_sanity_curves_are_those_of_mprt_on_the_same_random_models(case: Case, order: str, similarity: str) -> None:
    model, batch = case.model, case.batch
    met: list[Classifier] = []

    def explain_func(model: Classifier, inputs: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float32]:
        met.append(copy.deepcopy(model))
        return gradient_x_input(model, batch).numpy()

    theirs = quantus.MPRT(
        layer_order={"cascading": "top_down", "independent": "independent"}[order],
        similarity_func=quantus.similarity_func.correlation_spearman,
        abs=similarity == "abs_spearman",
        **QUIET,
    )
    images, targets = batch.images.numpy(), batch.targets.numpy()
    with torch.random.fork_rng(devices=[]):
        curves = theirs(
            model, images, targets, case.maps.numpy(), channel_first=True, softmax=False, explain_func=explain_func
        )
    assert curves.pop("original") == pytest.approx([1.0] * len(batch))
    names, models, expected = list(curves), met[1:], np.stack(list(curves.values()), axis=1)
    if order == "independent":  # Quantus then begins at the image
        names, models, expected = names[::-1], models[::-1], expected[:, ::-1]
    steps = RandomisedModels(model, Randomisation(by="layer"), NOISE, *images.shape[-2:])
    assert names == [f"network.{name}" for name in steps.names]
    metric = SanityParameters.model_validate({"order": order, "by": "layer", "similarity": [similarity]})
    context = Context(explain=gradient_x_input, randomised=lambda *_: models)
    found = metric(model, batch, case.maps, context).curves[similarity]
    np.testing.assert_allclose(found, expected, atol=1e-5)

"""Score-CAM against its algorithm, one channel at a time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_models import make_batch, settle, small_classifier
from torch import Tensor, nn

from pipeline.contracts import Setting
from pipeline.errors import FatalError
from pipeline.methods.score_cam import ScoreCam
from pipeline.models import Classifier, ModelConfig, load_classifier
from pipeline.noise import Noise


def slow_score_cam(model: Classifier, image: Tensor, target: int, protocol: str) -> Tensor:
    """Algorithm 1 with the baseline's score, or the published loop; layer 3 of the small network."""
    size = image.shape[1:]
    with torch.no_grad():
        maps = model.network[:4]((image[None] - model.mean) / model.std)
        baseline = F.softmax(model(torch.zeros_like(image)[None]), 1)[0, target]
        scores, larges = [], []
        for channel in range(maps.shape[1]):
            large = F.interpolate(maps[:, channel : channel + 1], size=size, mode="bilinear", align_corners=False)
            flat = bool(large.max() - large.min() < 1e-7)
            mask = torch.zeros_like(large) if flat else (large - large.min()) / (large.max() - large.min())
            score = F.softmax(model(image[None] * mask), 1)[0, target]
            scores.append(score - baseline if protocol == "paper" else score * (not flat))
            larges.append(large)
        weights = torch.stack(scores)
        weights = weights.exp() / weights.exp().sum() if protocol == "paper" else weights
        return sum(weight * large for weight, large in zip(weights, larges, strict=True)).clamp(min=0)


@pytest.mark.parametrize("protocol", ["paper", "official"])
@pytest.mark.parametrize("rows", [1, 3, 64])
def test_a_map_is_that_of_the_algorithm(protocol: str, rows: int) -> None:
    model = small_classifier()
    with torch.no_grad():
        # A dead channel, whose map is flat.
        model.network[2].bias[5] = -100
    model.rows = rows
    batch = make_batch(model, 3, size=9)
    expected = [
        slow_score_cam(model, image, int(target), protocol)
        for image, target in zip(batch.images, batch.targets, strict=True)
    ]
    found = ScoreCam(layer="3", protocol=protocol)(model, batch, Noise())
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-5, rtol=1e-4)


def test_the_hidden_part_may_have_the_mean_colour_as_in_the_published_code() -> None:
    model = small_classifier()
    batch = make_batch(model, 2)
    found = ScoreCam(layer="3", protocol="official", fill="mean")(model, batch, Noise())
    normalised = Classifier(model.network, classes=5)
    # The published code's image is the normalised one, whose zero is the mean colour.
    expected = [
        slow_score_cam(normalised, image, int(target), "official")
        for image, target in zip((batch.images - model.mean) / model.std, batch.targets, strict=True)
    ]
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-5, rtol=1e-4)


def test_a_layer_with_more_channels_than_declared_is_refused() -> None:
    model = small_classifier()
    method = ScoreCam(layer="3", channels=11)
    assert "score_cam: the layer has 12 channels" in str(method.objection(model, Setting(5, 8, 8)))
    assert ScoreCam(layer="3", channels=12).objection(model, Setting(5, 8, 8)) is None
    with pytest.raises(FatalError, match="set `channels: 12`"):
        method(model, make_batch(model), Noise())


@pytest.mark.parametrize(("layer", "words"), [("9", "has no layer '9'"), ("6", "expected a map"), (None, "no spatial")])
def test_a_layer_without_a_map_is_refused(layer: str | None, words: str) -> None:
    model = small_classifier()
    if layer is None:
        model = Classifier(settle(nn.Sequential(nn.Flatten(), nn.Linear(192, 3))), classes=3)
    reason = str(ScoreCam(layer=layer).objection(model, Setting(5, 8, 8)))
    assert reason.startswith("score_cam: ") and words in reason


def test_a_vision_transformer_has_no_map() -> None:
    model = load_classifier(ModelConfig(name="vit_b_16", weights="random"), classes=5)
    assert "no spatial layer" in str(ScoreCam().objection(model, Setting(5, 224, 224)))

"""Networks that PruneGrad and PrunePGD cannot prune, or can in spite of their shape."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_models import linear_classifier, make_batch, settle, small_classifier
from torch import Tensor, nn

from pipeline.contracts import Batch, Setting
from pipeline.errors import FatalError
from pipeline.methods.prune_grad import PruneGrad
from pipeline.methods.prune_pgd import PrunePGD
from pipeline.methods.pruning import (
    percentile_thresholds,
    unit_scores,
)
from pipeline.models import Classifier
from pipeline.noise import Noise


def test_a_linear_model_is_objected_to() -> None:
    model = linear_classifier()
    assert "no activation function" in str(PruneGrad(percentile=60).objection(model, Setting(3, 4, 4)))
    assert PrunePGD(percentile=60).objection(small_classifier(), Setting(5, 8, 8)) is None
    with pytest.raises(FatalError, match="no units"):
        PruneGrad(percentile=60)(model, make_batch(model, size=4), Noise())


class Branches(nn.Module):
    """Windows folded into the first dimension, an activation of parameters alone, and a branch that leads nowhere."""

    def __init__(self, sequence_first: bool = False) -> None:
        super().__init__()
        self.embed = nn.Linear(48, 6)
        self.head = nn.Linear(24, 3)
        self.table = nn.Parameter(torch.zeros(4, 6))
        self.sequence_first = sequence_first

    def forward(self, images: Tensor) -> Tensor:
        windows = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(-1, 48)
        bias = torch.tanh(self.table)
        tokens = F.silu(self.embed(windows)).view(-1, 4, 6) + bias
        if self.sequence_first:
            tokens = F.relu(tokens.transpose(0, 1)).transpose(0, 1)
        F.relu(tokens * 2)
        logits: Tensor = self.head(tokens.flatten(1))
        return logits


def test_folded_images_and_calls_that_lead_nowhere_are_pruned_by_image() -> None:
    network = settle(Branches())
    model = Classifier(network, classes=3)
    batch = make_batch(model, 3)
    together = PruneGrad(percentile=70)(model, batch, Noise())
    scores = unit_scores(model, batch.images, batch.targets, "logit")
    assert scores.units.shape == (3, 48) and int(scores.without_effect()[0]) == 24
    kept = scores.above(percentile_thresholds(scores, 70))
    assert kept[0] is None and int(sum(one.sum() for one in kept if one is not None)) == 3 * 15
    for row in range(3):
        alone = Batch(batch.images[row : row + 1], batch.targets[row : row + 1], batch.ids[row : row + 1])
        torch.testing.assert_close(PruneGrad(percentile=70)(model, alone, Noise())[0], together[row])


def test_an_activation_without_images_first_is_objected_to() -> None:
    model = Classifier(settle(Branches(sequence_first=True)), classes=3)
    assert "activation 2" in str(PruneGrad(percentile=60).objection(model, Setting(3, 8, 8)))


def test_an_activation_changed_in_place_is_an_error() -> None:
    class Scaled(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return F.gelu(features).mul_(2.0)

    model = Classifier(settle(nn.Sequential(nn.Flatten(), nn.Linear(48, 6), Scaled(), nn.Linear(6, 3))), classes=3)
    with pytest.raises(FatalError, match="activation 0"):
        PruneGrad(percentile=60)(model, make_batch(model, size=4), Noise())
    objection = PrunePGD(percentile=60).objection(model, Setting(3, 4, 4))
    assert objection is not None and objection.startswith("prune_pgd: the model changes what activation 0")


class Averaged(nn.Module):
    """Logits that are averaged over an image and its mirror image, in either order of the rows."""

    def __init__(self, image_after_image: bool) -> None:
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)
        self.image_after_image = image_after_image

    def forward(self, images: Tensor) -> Tensor:
        both = torch.stack([images, images.flip(-1)], int(self.image_after_image))
        features = F.gelu(self.features(both.flatten(0, 1))).mean((2, 3))
        return self.head(features.view(*both.shape[:2], 4).mean(int(self.image_after_image)))  # type: ignore[no-any-return]


def test_rows_that_are_not_image_after_image_are_objected_to() -> None:
    method, setting = PruneGrad(percentile=60), Setting(3, 8, 8)
    mixed, ordered = (Classifier(settle(Averaged(one)), classes=3) for one in (False, True))
    assert "activation 0" in str(method.objection(mixed, setting))
    assert method.objection(ordered, setting) is None


def test_units_that_depend_on_other_images_are_objected_to() -> None:
    class Centred(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return F.relu(features - features.mean(0))

    model = Classifier(settle(nn.Sequential(nn.Flatten(), nn.Linear(48, 6), Centred(), nn.Linear(6, 3))), classes=3)
    assert "on other images" in str(PruneGrad(percentile=60).objection(model, Setting(3, 4, 4)))


def test_a_change_that_the_interception_hides_is_objected_to() -> None:
    class ViewBefore(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            part = features[:, :6]
            F.relu_(features)
            return part

    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 9), ViewBefore(), nn.Linear(6, 3))
    model = Classifier(settle(network, 3.0), classes=3)
    assert "replaced by itself" in str(PruneGrad(percentile=60).objection(model, Setting(3, 4, 4)))

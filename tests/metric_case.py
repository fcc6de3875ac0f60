"""What every metric can be asked about: a small model, images with an object each, maps, and all else it may need."""

from __future__ import annotations

from dataclasses import replace

import torch
from small_models import make_batch, settle, small_classifier, small_network
from torch import Tensor

from pipeline.contracts import Batch, Context, Scores
from pipeline.methods import GradientXInput
from pipeline.models import Classifier
from pipeline.noise import Noise
from pipeline.reduction import reduce_channels

# Parameters that keep a metric quick on the small network.
QUICK: dict[str, dict[str, object]] = {
    "pointing": {"tolerance": 1},
    "infidelity": {"draws": 20},
    "max_sensitivity": {"draws": 3},
}
# Parameters behind the golden files.
GOLDEN: dict[str, dict[str, object]] = {
    **QUICK,
    "pointing": {"tolerance": 3},
    "perturbation_curve": {"order": "least_relevant_first", "start": "fill", "fill": "noise", "output": "logit"},
}
METHOD = GradientXInput()


def case(count: int = 5, model: Classifier | None = None) -> tuple[Classifier, Batch, Tensor, Context]:
    """A model, images of 8 × 8 with an object each, maps of a method, and all that a metric may ask for."""
    model = model or small_classifier()
    batch = make_batch(model, count)
    regions = torch.zeros(count, 1, 8, 8, dtype=torch.bool)
    regions[..., 2:5, 3:6] = True
    batch = replace(batch, regions={"object": regions})
    other = Classifier(settle(small_network(), 2.0), classes=5)

    def explain(used: Classifier, images: Batch) -> Tensor:
        return reduce_channels(METHOD(used, images, Noise()), METHOD.reduction)

    return model, batch, explain(model, batch), Context(explain=explain, permuted=other)


def both(scores: Scores) -> dict[str, Tensor]:
    """Measures and curves by name."""
    return {**scores.measures, **{f"curve of {name}": curve for name, curve in scores.curves.items()}}

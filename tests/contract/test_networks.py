"""Every method on networks of every kind that it has to explain."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import pytest
import torch
from method_parameters import QUICK
from torch import Tensor, nn

from pipeline.contracts import AttributionMethod, Batch, Setting
from pipeline.methods import METHODS
from pipeline.models import Classifier, ModelConfig, load_classifier
from pipeline.noise import Noise

pytestmark = pytest.mark.slow

# Name, image side, classes, file with trained weights.
NETWORKS: dict[str, tuple[int, int, str | None]] = {
    "squeezenet1_0": (64, 1000, "imagenet_squeezenet1_0.safetensors"),
    "cifar_resnet20": (32, 10, "cifar10_resnet20.safetensors"),
    "resnet18": (64, 20, None),
    "vgg11": (64, 20, None),
    "inception_v3": (96, 20, None),
    "densenet121": (64, 20, None),
    "mobilenet_v2": (64, 20, None),
    "vit_b_16": (224, 20, None),
}
# Rules that have no meaning for a vision transformer, and maps of a layer that it does not have.
NOT_ON_TRANSFORMERS = {
    "grad_cam", "guided_backprop", "guided_grad_cam", "rectgrad", "deeplift", "lrp_epsilon", "score_cam",
    "ablation_cam", "full_grad",
}  # fmt: skip

# A layer with few channels, for methods that take a forward a channel.
NARROW_LAYER = {
    "squeezenet1_0": "features.3",
    "resnet18": "layer1",
    "vgg11": "features.2",
    "inception_v3": "Conv2d_2b_3x3",
    "densenet121": "features.pool0",
    "mobilenet_v2": "features.2",
}

# Single precision where double takes minutes. The transformer has no kinks that rounding could decide on, so that only
# methods that step by an optimiser, or by a gradient's sign, which makes rounding larger, need the double there.
IN_SINGLE = {"vit_b_16"}
STEPPING = {"meaningful_perturbation", "learned_propagation", "agi"}
# A transformer's forward takes as long as twenty of a small network's.
FEWER: dict[str, dict[str, object]] = {
    "integrated_gradients": {"steps": 2},
    "smoothgrad": {"samples": 2},
    "smoothgrad_squared": {"samples": 2},
    "rise": {"masks": 6},
    "occlusion": {"patch": 112, "stride": 112},
    "extremal_perturbation": {"iterations": 2, "areas": (0.1,)},
    "meaningful_perturbation": {"iterations": 1},
    "agi": {"classes": 1, "steps": 2},
    "dynamic_ablation": {"iterations": 6},
    "learned_propagation": {"iterations": 1},
    "prune_pgd": {"steps": 2},
}
# Pruning sorts single-precision scores by their bits, and extremal perturbation's masks are made in single precision.
ONLY_SINGLE = {"prune_grad", "prune_pgd", "extremal_perturbation"}


# Those that a change is tried on each time: with depthwise convolutions, with residuals, with neither.
EACH_TIME = {"resnet18", "mobilenet_v2", "vgg11", "squeezenet1_0"}


@pytest.fixture(
    scope="module",
    params=[name if name in EACH_TIME else pytest.param(name, marks=pytest.mark.large) for name in NETWORKS],
)
def case(request: pytest.FixtureRequest) -> tuple[str, Classifier, Batch]:
    size, classes, file = NETWORKS[request.param]
    weights = "random"
    if file is not None:
        shared: Path = request.getfixturevalue("shared_data")
        weights = str(shared / "weights" / file)
    model = load_classifier(ModelConfig(name=request.param, weights=weights), classes=classes)
    with torch.no_grad():
        if request.param == "vit_b_16":
            # torchvision's starts with a head of zeros, with which nothing explains anything.
            head = model.network.get_submodule("heads.head").weight
            head.copy_(Noise().normal("head", ["head"], tuple(head.shape))[0] / 30)
        images = grained(("a", "b"), size)
        return request.param, model, Batch(images, model(images).argmax(1), ("a", "b"))


@cache
def grained(ids: tuple[str, ...], size: int) -> Tensor:
    """Smooth images with a grain: on flat places the winner of a max pooling is decided by rounding."""
    smooth = nn.functional.interpolate(Noise().uniform("image", ids, (3, 8, 8)), size=size, mode="bilinear")
    return 0.8 * smooth + 0.2 * Noise().uniform("grain", ids, (3, size, size))


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.model_fields["name"].default)
def test_a_map_is_finite_and_its_own_and_the_model_is_left_as_it_was(
    kind: type[AttributionMethod], case: tuple[str, Classifier, Batch]
) -> None:
    network, model, batch = case
    size = batch.images.shape[-1]
    name = kind.model_fields["name"].default
    if name in STEPPING or not (network in IN_SINGLE or name in ONLY_SINGLE):
        # Rounding decides which side of a kink an input is on, another batch rounds otherwise, and untrained networks
        # hang on little: in double precision, what is left of a difference between batches is the method's own.
        model = copy.deepcopy(model).double()
        batch = Batch(batch.images.double(), batch.targets, batch.ids)
    parameters = {key: value for key, value in QUICK.get(name, {}).items() if key != "layer"}
    if name == "occlusion":
        parameters = {"patch": size // 4, "stride": size // 4}
    if name in ("score_cam", "ablation_cam") and network in NARROW_LAYER:
        parameters["layer"] = NARROW_LAYER[network]
    if network in IN_SINGLE:
        parameters |= FEWER.get(name, {})
    method = kind(**parameters)
    objection = method.objection(model, Setting(model.classes, size, size))
    if network == "vit_b_16" and name in NOT_ON_TRANSFORMERS:
        assert objection is not None and objection.startswith(name)
        return
    assert objection is None
    before = {key: value.clone() for key, value in model.state_dict().items()}
    maps = method(model, batch, Noise())
    assert maps.shape in {(2, 3, size, size), (2, 1, size, size)} and maps.isfinite().all()
    if NETWORKS[network][2] is not None and name != "dynamic_ablation":
        # An untrained network may not mind what is taken away, and a short walk may find nothing to take away.
        assert maps.flatten(1).std(1).min() > 0
    model.rows = 1
    last = Batch(batch.images[1:], batch.targets[1:], batch.ids[1:])
    alone = method(model, last, Noise())
    model.rows = 32
    # Relative to the map's largest value: gradients of an untrained network are small.
    scale = maps[1:].abs().max().clamp(min=1e-12)
    torch.testing.assert_close(alone / scale, maps[1:] / scale, atol=1e-4, rtol=0)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not model.training and all(parameter.grad is None for parameter in model.parameters())

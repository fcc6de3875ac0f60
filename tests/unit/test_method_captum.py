"""Captum's classes as methods."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from small_models import linear_classifier, make_batch, small_classifier
from torch import nn

from jobs.spec import load_spec
from pipeline.contracts import Batch, Cost, Setting
from pipeline.errors import FatalError
from pipeline.methods import Captum
from pipeline.models import Classifier
from pipeline.noise import Noise

SETTING = Setting(5, 8, 8)


def captum(**parameters: object) -> Captum:
    return Captum.model_validate(parameters)


def test_a_linear_models_ablation_is_weight_times_pixel() -> None:
    model = linear_classifier()
    batch = make_batch(model, 2, 4)
    weight = model.network[1].weight[batch.targets].view(2, 3, 4, 4)
    found = captum(attribution="FeatureAblation")(model, batch, Noise())
    torch.testing.assert_close(found, weight * batch.images, atol=1e-5, rtol=0)


QUARTERS = torch.arange(4, dtype=torch.int32).view(2, 2).repeat_interleave(4, 0).repeat_interleave(4, 1)


def divided(model: Classifier, count: int) -> Batch:
    return replace(make_batch(model, count), superpixels=QUARTERS.expand(count, 8, 8))


def test_superpixels_share_one_value() -> None:
    model = small_classifier()
    found = captum(attribution="FeatureAblation", superpixels=4)(model, divided(model, 2), Noise())
    for label in range(4):
        inside = found[:, :, label == QUARTERS]
        torch.testing.assert_close(inside, inside[:, :1, :1].expand_as(inside))
    assert len(found[0].unique()) == 4


@pytest.mark.parametrize(
    "parameters", [{"attribution": "ShapleyValueSampling", "superpixels": 4}, {"attribution": "GradientShap"}], ids=str
)
def test_random_classes_give_an_image_the_same_map_in_any_batch_and_leave_the_generators_alone(
    parameters: dict[str, object],
) -> None:
    model = small_classifier()
    batch = divided(model, 3)
    state, other = torch.get_rng_state(), np.random.get_state()[1].tolist()
    method = captum(**parameters, arguments={"n_samples": 2})
    together = method(model, batch, Noise(1))
    assert torch.equal(state, torch.get_rng_state()) and np.random.get_state()[1].tolist() == other
    last = Batch(batch.images[2:], batch.targets[2:], batch.ids[2:], QUARTERS[None])
    torch.testing.assert_close(method(model, last, Noise(1)), together[2:], atol=1e-5, rtol=0)
    assert not torch.allclose(method(model, last, Noise(2)), together[2:], atol=1e-5)


def test_a_layers_map_is_enlarged_to_the_image() -> None:
    model = small_classifier()
    method, batch = captum(attribution="LayerGradCam", layer="3"), make_batch(model)
    assert method.objection(model, SETTING) is None
    found = method(model, batch, Noise())
    assert found.shape == (5, 1, 8, 8)
    last = Batch(batch.images[4:], batch.targets[4:], batch.ids[4:])
    torch.testing.assert_close(method(model, last, Noise()), found[4:], atol=1e-5, rtol=0)


def test_the_estimate_of_passes_goes_with_the_features() -> None:
    large = Setting(1000, 224, 224)
    assert captum(attribution="ShapleyValueSampling", superpixels=50).cost(large) == Cost(25 * 51)
    assert captum(attribution="FeatureAblation").cost(large) == Cost(3 * 224 * 224 + 1)
    assert captum(attribution="IntegratedGradients", arguments={"n_steps": 7}).cost(large) == Cost(7, 7)
    too_many = captum(attribution="ShapleyValueSampling").objection(small_classifier(), large)
    assert too_many is not None and "150,528 features are too many; set superpixels" in too_many


def test_noise_tunnel_averages_another_class() -> None:
    model = small_classifier()
    batch = make_batch(model, 2)
    quiet = captum(attribution="NoiseTunnel", of="Saliency", arguments={"nt_samples": 2, "stdevs": 0.0, "abs": False})
    plain = captum(attribution="Saliency", arguments={"abs": False})
    torch.testing.assert_close(quiet(model, batch, Noise()), plain(model, batch, Noise()), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"attribution": "Salience"}, "no such class; did you mean 'Saliency'"),
        ({"attribution": "FeaturePermutation"}, "would depend on its batch"),
        ({"attribution": "NeuronGradient", "layer": "3"}, "does not explain a class"),
        ({"attribution": "LayerGradCam", "layer": "nine"}, "no layer 'nine'"),
        ({"attribution": "Saliency", "arguments": {"abz": True}}, "no argument 'abz'; did you mean 'abs'"),
        ({"attribution": "NoiseTunnel"}, "name it with of"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(parameters: dict[str, object], said: str) -> None:
    assert said in str(captum(**parameters).objection(small_classifier(), SETTING))


def test_a_class_that_fails_on_the_model_says_so_and_leaves_no_hook() -> None:
    relu = nn.ReLU()
    reused = nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu, nn.Flatten(), nn.Linear(64, 5))
    model = Classifier(reused, classes=5)
    assert "captum:DeepLift fails on this model" in str(captum(attribution="DeepLift").objection(model, SETTING))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_missing_captum_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
    with pytest.raises(FatalError, match=r"heatline\[captum\]"):
        captum(attribution="Saliency")(small_classifier(), make_batch(small_classifier()), Noise())


def test_a_spec_names_a_class_after_a_colon(tmp_path: Path) -> None:
    spec = tmp_path / "a.yaml"
    methods = ["captum:Saliency", {"name": "captum:Occlusion", "arguments": {"sliding_window_shapes": [3, 4, 4]}}]
    spec.write_text(
        yaml.safe_dump(
            {
                "version": 1,
                "name": "a",
                "output": "out",
                "dataset": {"source": "digits"},
                "models": [{"name": "mnist_cnn2", "weights": "random"}],
                "methods": methods,
            }
        )
    )
    saliency, occlusion = load_spec(spec).methods
    assert (saliency.id, saliency.config) == ("captum:Saliency", Captum(attribution="Saliency"))
    assert occlusion.config == captum(attribution="Occlusion", arguments={"sliding_window_shapes": (3, 4, 4)})

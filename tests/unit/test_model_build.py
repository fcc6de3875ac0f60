"""Networks by name."""

from __future__ import annotations

import builtins
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.errors import FatalError
from pipeline.models import build_network, known_models

OWN = [model.name for model in known_models() if model.family == "own"]


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("size", [28, 32, 45])
def test_own_nets_take_small_and_odd_sizes(name: str, size: int) -> None:
    network = build_network(name, 7).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, size, size)).shape == (1, 7)


@pytest.mark.parametrize(
    ("name", "parameters"), [("cifar_resnet8", 75290), ("cifar_resnet20", 269722), ("cifar_resnet32", 464154)]
)
def test_resnets_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in build_network(name, 10).parameters()) == parameters
    assert next(model for model in known_models() if model.name == name).parameters == parameters


def test_first_block_of_a_stage_shortcuts_every_second_pixel_between_zero_channels() -> None:
    block = build_network("cifar_resnet8", 10).layer2[0].eval()  # type: ignore[union-attr,index,operator]
    nn.init.zeros_(block.bn2.weight)
    images = torch.rand(1, 16, 8, 8)
    expected = torch.zeros(1, 32, 4, 4)
    expected[:, 8:24] = images[:, :, ::2, ::2]
    assert torch.equal(block(images), expected)


def test_same_seed_gives_the_same_weights() -> None:
    first, again, other = (build_network("cifar_cnn4", 10, seed=seed).state_dict() for seed in (3, 3, 4))
    key = "classifier.1.weight"
    assert torch.equal(first[key], again[key])
    assert not torch.equal(first[key], other[key])


def test_building_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    build_network("mnist_cnn2", 10, seed=5)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_nets_with_auxiliary_heads_return_a_tensor_in_both_modes(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = build_network(name, 5)
    assert network.transform_input is False
    images = torch.zeros(2, 3, 96, 96)
    with torch.no_grad():
        assert network(images).shape == (2, 5)
        assert network.eval()(images).shape == (2, 5)


def test_own_function_is_told_the_number_of_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_nets.py").write_text(
        "from torch import nn\n"
        "def told(num_classes): return nn.Linear(2, num_classes)\n"
        "def fixed(): return nn.Linear(2, 3)\n"
        "def wrong(): return 'text'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert build_network("own_nets:told", 9).out_features == 9
    assert build_network("own_nets:fixed", 9).out_features == 3
    with pytest.raises(FatalError, match=r"returned str, expected nn\.Module"):
        build_network("own_nets:wrong", 9)
    with pytest.raises(FatalError, match="did you mean 'fixed'"):
        build_network("own_nets:fixd", 9)
    with pytest.raises(FatalError, match="cannot import 'no_such_nets'"):
        build_network("no_such_nets:told", 9)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("math:sqrt", r"TypeError: "),
        ("builtins:dict", r"returned dict, expected nn\.Module"),
        ("raising_nets:anything", r"cannot import 'raising_nets': KeyError: 'no such variable'"),
        ("leaving_nets:anything", r"cannot import 'leaving_nets': SystemExit: 3"),
        ("failing_nets:fails", r"the function failed: ZeroDivisionError: first line$"),
        ("failing_nets:leaves", r"the function failed: SystemExit$"),
    ],
)
def test_whatever_a_function_of_ones_own_raises_is_one_line(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raising_nets.py").write_text("raise KeyError('no such variable')\n")
    (tmp_path / "leaving_nets.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "failing_nets.py").write_text(
        "def fails(): raise ZeroDivisionError('first line\\nsecond')\ndef leaves(): raise SystemExit\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FatalError, match=message) as caught:
        build_network(name, 10)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"model '{name}'")


def test_missing_timm_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *rest: object, **named: object) -> object:
        if name == "timm":
            raise ImportError(name)
        return original(name, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(FatalError, match=r"pip install heatline\[timm\]"):
        build_network("timm:resnet18", 10)


def test_known_models_are_classifiers_with_their_weights() -> None:
    models = {model.name: model for model in known_models()}
    assert "vgg16" in models and "fasterrcnn_resnet50_fpn" not in models and "fcn_resnet50" not in models
    assert models["resnet50"].weights == ("IMAGENET1K_V1", "IMAGENET1K_V2")
    assert models["resnet50"].parameters == 25557032

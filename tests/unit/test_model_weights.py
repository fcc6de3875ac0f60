"""Files of weights: what loads, what is refused, and what each refusal says."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from pipeline.errors import FatalError
from pipeline.models import ModelConfig, build_network, load_classifier, read_weights, weights_bytes
from pipeline.models.weights import weights_metadata

NAME = "cifar_resnet8"


def state(name: str = NAME, classes: int = 10, seed: int = 1) -> dict[str, Tensor]:
    return dict(build_network(name, classes, seed=seed).state_dict())


def config(path: Path, **settings: object) -> ModelConfig:
    return ModelConfig.model_validate({"name": NAME, "weights": str(path), **settings})


def saved(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    path.write_bytes(weights_bytes(tensors, metadata or {}))
    return path


def test_weights_round_trip_with_their_normalisation_and_class_count(tmp_path: Path) -> None:
    metadata = weights_metadata(NAME, 4, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    path = saved(tmp_path / "w.safetensors", state(classes=4), metadata)
    model = load_classifier(config(path), classes=100, rows=7)
    assert model.classes == 4 and model.rows == 7
    assert model.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert model.std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    assert all(torch.equal(model.network.state_dict()[key], value) for key, value in state(classes=4).items())
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_normalisation_of_the_spec_wins_over_that_of_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", state(), weights_metadata(NAME, 10, (0.1,) * 3, (0.4,) * 3))
    model = load_classifier(config(path, mean=(0.7, 0.8, 0.9)), classes=10)
    assert model.mean.flatten().tolist() == pytest.approx([0.7, 0.8, 0.9])
    assert model.std.flatten().tolist() == pytest.approx([0.4] * 3)


def test_normalisation_is_imagenets_where_nothing_says_otherwise() -> None:
    model = load_classifier(ModelConfig(name=NAME, weights="random"), classes=10)
    assert model.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: {"state_dict": tensors, "epoch": 3},
        lambda tensors: {"model": tensors},
        lambda tensors: {f"module.{key}": value for key, value in tensors.items()},
        lambda tensors: {"state_dict": {f"module.{key}": value for key, value in tensors.items()}},
        lambda tensors: {key: v for key, v in tensors.items() if not key.endswith("num_batches_tracked")},
        lambda tensors: {key: v.half().float() if v.is_floating_point() else v for key, v in tensors.items()},
    ],
    ids=["state_dict", "model", "module", "both", "without counters", "plain"],
)
def test_checkpoints_load_however_they_are_wrapped(
    tmp_path: Path, wrap: Callable[[dict[str, Tensor]], dict[str, object]]
) -> None:
    torch.save(wrap(state()), tmp_path / "w.pth")
    model = load_classifier(config(tmp_path / "w.pth"), classes=10)
    assert torch.allclose(model.network.state_dict()["linear.weight"], state()["linear.weight"], atol=1e-3)


def test_bytes_take_the_place_of_the_weights_of_the_spec() -> None:
    model = load_classifier(ModelConfig(name=NAME, weights="train"), classes=10, weights=weights_bytes(state(), {}))
    assert torch.equal(model.network.state_dict()["conv1.weight"], state()["conv1.weight"])
    with pytest.raises(FatalError, match="to be trained"):
        load_classifier(ModelConfig(name=NAME, weights="train"), classes=10)


def test_uri_reads_like_a_path(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", state())
    assert read_weights(path.as_uri()).state.keys() == read_weights(path).state.keys()


def test_tied_and_reordered_tensors_are_written(tmp_path: Path) -> None:
    tensor = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    read = read_weights(weights_bytes({"a": tensor, "b": tensor}, {})).state
    assert torch.equal(read["a"], tensor) and torch.equal(read["b"], tensor)


def test_weights_of_another_architecture_name_what_differs(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", state("mnist_cnn2"), {"architecture": "mnist_cnn2"})
    with pytest.raises(FatalError) as caught:
        load_classifier(config(path), classes=10)
    message = str(caught.value)
    assert f"not the weights of {NAME} (the file says mnist_cnn2)" in message
    assert "missing conv1.weight, bn1.weight, bn1.bias and" in message
    assert "unexpected classifier.1.bias, classifier.1.weight, classifier.3.bias and 5 more" in message
    assert "\n" not in message


def test_a_deeper_net_of_the_same_family_names_the_blocks_too_many(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", state("cifar_resnet20"))
    with pytest.raises(FatalError, match=r"unexpected layer1\.1\."):
        load_classifier(config(path), classes=10)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", {**state(), "conv1.weight": torch.zeros(16, 1, 3, 3)})
    with pytest.raises(FatalError, match=r"other shapes conv1\.weight \(16, 1, 3, 3\) for \(16, 3, 3, 3\)"):
        load_classifier(config(path), classes=10)


def test_another_class_count_is_said_in_numbers(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", state(classes=100))
    with pytest.raises(FatalError, match=r"has 100 classes, cifar_resnet8 was built for 10; .*`classes: 100`"):
        load_classifier(config(path), classes=10)
    assert load_classifier(config(path, classes=100), classes=10).classes == 100


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    broken = state()
    broken["linear.bias"][3] = float("nan")
    with pytest.raises(FatalError, match=r"NaN or infinite weights in linear\.bias"):
        load_classifier(config(saved(tmp_path / "w.safetensors", broken)), classes=10)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match=r"none\.safetensors: no such file"):
        load_classifier(config(tmp_path / "none.safetensors"), classes=10)


@pytest.mark.parametrize("content", [b"", b"not weights", b"\xff" * 64])
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, ending: str, content: bytes) -> None:
    (tmp_path / f"w.{ending}").write_bytes(content)
    with pytest.raises(FatalError, match=r"not a (safetensors|PyTorch) file") as caught:
        read_weights(tmp_path / f"w.{ending}")
    assert "\n" not in str(caught.value)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", state())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FatalError, match="cut short"):
        read_weights(path)


def test_a_pickle_that_could_run_code_is_not_loaded(tmp_path: Path) -> None:
    trap = tmp_path / "trapped"

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (trap,)

    (tmp_path / "w.pt").write_bytes(pickle.dumps({"conv1.weight": Trap()}, protocol=2))
    torch.save({"conv1.weight": Trap()}, tmp_path / "v.pt")
    for name in ("w.pt", "v.pt"):
        with pytest.raises(FatalError, match="not loaded"):
            read_weights(tmp_path / name)
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"e\x00\x00", b"\x80\x02q", b"0" * 600, b"(lp0\n"])
def test_odd_bytes_under_the_name_of_a_pytorch_file_are_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.pt").write_bytes(content)
    with pytest.raises(FatalError, match=r"odd\.pt: not a PyTorch file") as caught:
        read_weights(tmp_path / "odd.pt")
    assert "\n" not in str(caught.value)


def test_tensors_whose_names_are_numbers_are_refused(tmp_path: Path) -> None:
    torch.save({0: torch.zeros(1)}, tmp_path / "numbers.pt")
    with pytest.raises(FatalError, match="expected tensors by name"):
        read_weights(tmp_path / "numbers.pt")


def test_a_safetensors_file_whose_metadata_is_null_has_none() -> None:
    header = b'{"__metadata__":null,"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    found = read_weights(len(header).to_bytes(8, "little") + header + bytes(4))
    assert not found.metadata and list(found.state) == ["w"]


def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(FatalError, match="epoch"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("key", "value"), [("mean", "0.5"), ("std", "a,b,c"), ("num_classes", "ten"), ("num_classes", "0")]
)
def test_unreadable_metadata_is_named(tmp_path: Path, key: str, value: str) -> None:
    path = saved(tmp_path / "w.safetensors", state(), {key: value})
    with pytest.raises(FatalError, match=f"metadata '{key}' is '{value}'"):
        load_classifier(config(path), classes=10)


@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_published_files_with_auxiliary_heads_load(name: str) -> None:
    full = torchvision.models.get_model(name, num_classes=10, aux_logits=True, init_weights=False)
    model = load_classifier(
        ModelConfig(name=name, weights="train"), classes=10, weights=weights_bytes(full.state_dict(), {})
    )
    images = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        assert torch.allclose(model(images), full.eval()((images - model.mean) / model.std), atol=1e-5)


def test_densenet_files_with_old_layer_names_load(tmp_path: Path) -> None:
    network = build_network("densenet121", 10, seed=4)
    old = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value
        for key, value in network.state_dict().items()
    }
    torch.save(old, tmp_path / "w.pth")
    model = load_classifier(ModelConfig(name="densenet121", weights=str(tmp_path / "w.pth")), classes=10)
    key = "features.denseblock1.denselayer2.conv2.weight"
    assert torch.equal(model.network.state_dict()[key], network.state_dict()[key])


def test_layers_that_convert_by_version_load_from_safetensors() -> None:
    tensors = build_network("mnasnet0_5", 10, seed=2).state_dict()
    load_classifier(ModelConfig(name="mnasnet0_5", weights="train"), classes=10, weights=weights_bytes(tensors, {}))


def test_digest_is_of_weights_normalisation_and_name_and_not_of_the_file_kind(tmp_path: Path) -> None:
    torch.save({"state_dict": state()}, tmp_path / "w.pth")
    path = saved(tmp_path / "w.safetensors", state())
    changed = state()
    changed["linear.bias"][0] += 1e-6
    digests = [
        load_classifier(config(path), classes=10).digest,
        load_classifier(config(path, std=(0.2, 0.2, 0.2)), classes=10).digest,
        load_classifier(config(saved(tmp_path / "c.safetensors", changed)), classes=10).digest,
        load_classifier(ModelConfig(name=NAME, weights="random"), classes=10).digest,
    ]
    assert len(set(digests)) == 4 and all(len(digest) == 16 for digest in digests)
    assert load_classifier(config(tmp_path / "w.pth", id="other"), classes=10).digest == digests[0]


@pytest.mark.parametrize("edited", ["edited_nets", "edited_layers"])
def test_digest_of_a_function_of_ones_own_follows_its_source(
    edited: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = "from torch import nn\nclass Net(nn.Linear):\n    def forward(self, x): return super().forward(x) * {}\n"
    nets = "from edited_layers import Net\ndef build(): return Net(2, 3)  # {}\n"
    monkeypatch.syspath_prepend(tmp_path)
    random = ModelConfig(name="edited_nets:build", weights="random")

    def digest(**factors: int) -> str:
        for module, text in (("edited_nets", nets), ("edited_layers", layers)):
            monkeypatch.delitem(sys.modules, module, raising=False)
            (tmp_path / f"{module}.py").write_text(text.format(factors.get(module, 1)))
        return load_classifier(random, classes=3).digest

    first = digest()
    assert digest() == first
    assert digest(**{edited: 2}) != first


@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
@pytest.mark.parametrize("kind", ["published", "file", "random"])
def test_nets_that_transform_their_input_in_torchvision_give_its_logits(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ModelConfig(name=name, weights="random")
    tensors = build_network(name, 1000, seed=3).state_dict()
    if kind == "file":
        torch.save(tensors, tmp_path / "w.pth")
        config = ModelConfig(name=name, weights=str(tmp_path / "w.pth"))
    if kind == "published":
        monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", lambda *_, **__: tensors)
        config = ModelConfig(name=name, weights="DEFAULT")
    model = load_classifier(config, classes=1000, seed=3)

    theirs = torchvision.models.get_model(name, aux_logits=False, init_weights=False, transform_input=True).eval()
    theirs.load_state_dict(tensors)
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        # Random layers shrink the signal until nothing but the last bias is left of a logit.
        for network in (model.network, theirs):
            network.get_parameter("fc.bias").zero_()
        expected = theirs((images - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        difference = (model(images) - expected).abs().max() / expected.abs().max()
    assert difference < 1e-5

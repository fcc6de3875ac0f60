"""Nothing that is read can run code: no pickle, no YAML tags, no evaluated text."""

from __future__ import annotations

import ast
import pickle
from functools import cache
from pathlib import Path

import pytest
import torch
import torchvision

import cluster
import jobs
import pipeline
from jobs.document import parse_document
from jobs.problem import SpecError
from pipeline.errors import FatalError
from pipeline.models import ModelConfig, load_classifier

ROOMS = [Path(str(room.__file__)).parent for room in (pipeline, cluster, jobs)]

# Module and function, or a function alone, that turns what is read into code.
FORBIDDEN = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads", "marshal.loads"),
    *("dill.load", "dill.loads", "joblib.load", "shelve.open", "pandas.read_pickle", "pd.read_pickle"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "numpy.load", "np.load"),
    *("os.system", "os.popen", "eval", "exec", "compile", "__import__"),
}


class Payload:
    """Makes a file where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.place,)


@cache
def calls() -> list[tuple[str, ast.Call]]:
    """Every call in the program, with its place and the name of what is called."""
    files = sorted(path for room in ROOMS for path in room.rglob("*.py"))
    trees = [(file.name, ast.parse(file.read_text())) for file in files]
    found = [(name, node) for name, tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [(f"{name}:{node.lineno}: {ast.unparse(node.func)}", node) for name, node in found]


def test_nothing_that_is_read_becomes_code() -> None:
    assert len(calls()) > 5000
    assert not [place for place, _ in calls() if place.rpartition(" ")[2] in FORBIDDEN]


def test_pytorch_is_always_told_to_load_tensors_alone() -> None:
    loads = [
        (place, {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords})
        for place, call in calls()
        if place.endswith((" torch.load", ".get_state_dict", ".load_state_dict_from_url"))
    ]
    assert len(loads) >= 3
    assert not [place for place, keywords in loads if keywords.get("weights_only") != "True"]


def test_no_shell_is_asked() -> None:
    assert not [place for place, call in calls() if any(keyword.arg == "shell" for keyword in call.keywords)]


def test_downloaded_weights_are_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    member = torchvision.models.SqueezeNet1_0_Weights.IMAGENET1K_V1
    folder, place = tmp_path / "hub" / "checkpoints", tmp_path / "unpickled"
    folder.mkdir(parents=True)
    torch.save({"features.0.weight": Payload(place)}, folder / member.url.rpartition("/")[2])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(FatalError, match="holds more than tensors, which is not loaded since it can run code"):
        load_classifier(ModelConfig(name="squeezenet1_0", weights="IMAGENET1K_V1"), classes=1000)
    assert not place.exists()
    # The same file is dangerous indeed.
    pickle.loads(pickle.dumps(Payload(place)))
    assert place.exists()


def test_weights_in_a_file_are_not_unpickled(tmp_path: Path) -> None:
    place = tmp_path / "unpickled"
    torch.save({"layer": Payload(place)}, tmp_path / "net.pt")
    with pytest.raises(FatalError, match="not a PyTorch file of tensors alone"):
        load_classifier(ModelConfig(name="mnist_cnn2", weights=str(tmp_path / "net.pt")), classes=10)
    assert not place.exists()


@pytest.mark.parametrize("text", ["!!python/name:os.system", "a: !x 1", "!!python/object/new:os.system x"])
def test_a_tag_in_a_spec_is_a_problem(text: str) -> None:
    with pytest.raises(SpecError):
        parse_document(text, "spec.yaml", Path())


def test_a_tag_on_a_list_in_a_spec_calls_nothing(tmp_path: Path) -> None:
    place = tmp_path / "called"
    document = parse_document(f"!!python/object/apply:os.mkdir ['{place}']", "spec.yaml", Path())
    assert document.value == [str(place)] and not place.exists()

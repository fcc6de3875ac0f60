"""From a name to a network with seeded initial weights."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.errors import FatalError
from pipeline.models import cifar_cnn, cifar_resnet, cifar_vgg, mnist_cnn
from pipeline.suggestion import did_you_mean

OWN_NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "mnist_cnn2": mnist_cnn.mnist_cnn2,
    "cifar_cnn4": cifar_cnn.cifar_cnn4,
    "cifar_resnet8": cifar_resnet.cifar_resnet8,
    "cifar_resnet20": cifar_resnet.cifar_resnet20,
    "cifar_resnet32": cifar_resnet.cifar_resnet32,
    "cifar_resnet44": cifar_resnet.cifar_resnet44,
    "cifar_resnet56": cifar_resnet.cifar_resnet56,
    "cifar_vgg16": cifar_vgg.cifar_vgg16,
}
# Their auxiliary heads serve training alone; without them the output is a tensor in every mode. The published
# weights hold these heads, and the loader leaves them out. `init_weights` only chooses between two random
# initialisations, and the default one warns or is slow.
AUXILIARY_HEADS = {"inception_v3": ("AuxLogits.",), "googlenet": ("aux1.", "aux2.")}
_LIBRARIES = ("torch", "torchvision", "timm")
_WITHOUT_HEADS = {"aux_logits": False, "init_weights": False, "transform_input": False}


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that can be named in a spec.

    Attributes:
        name: as in the spec.
        family: `own` or `torchvision`.
        parameters: number of parameters; own nets with 10 classes, torchvision's with 1,000.
        weights: published weights by name, best last; empty for own nets.
    """

    name: str
    family: str
    parameters: int
    weights: tuple[str, ...]


def build_network(name: str, classes: int, *, seed: int = 0) -> nn.Module:
    """A network with random initial weights.

    Args:
        name: an own small net, a torchvision classifier, `timm:NAME`, or `module:function` for one's own.
        classes: number of logits; a function of one's own is told if it takes `num_classes`.
        seed: decides the initial weights; the global random state is left as it was.

    Returns:
        The network, in training mode; it takes normalised images (N, 3, H, W).

    Raises:
        FatalError: the name is unknown, an optional package is missing, or the function cannot be had.
    """
    check_name(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if name.startswith("timm:"):
            return _build_timm(name, classes)
        if ":" in name:
            return _build_from_function(name, classes)
        if name in OWN_NETWORKS:
            return OWN_NETWORKS[name](classes)
        settings = _WITHOUT_HEADS if name in AUXILIARY_HEADS else {}
        network: nn.Module = _torchvision_models().get_model(name, weights=None, num_classes=classes, **settings)
        return network


def source_digest(name: str, network: nn.Module) -> str | None:
    """Hash of the code of a network of one's own, since two versions of it may hold the same tensors.

    Args:
        name: as in the spec.
        network: what `build_network` gave for it.

    Returns:
        16 hexadecimal digits of a SHA-256 over the files of the named module and of those that define the
        network's layers, PyTorch's aside; None for a name that is not `module:function`.
    """
    module, colon, _ = name.partition(":")
    if not colon or module == "timm":
        return None
    modules = {module, *(type(layer).__module__ for layer in network.modules())}
    hashed = hashlib.sha256()
    for key in sorted(modules):
        file = getattr(sys.modules.get(key), "__file__", None)
        if key.partition(".")[0] not in _LIBRARIES and file is not None and Path(file).is_file():
            hashed.update(f"{key}\n".encode() + hashlib.sha256(Path(file).read_bytes()).digest())
    return hashed.hexdigest()[:16]


def known_models() -> list[ModelInfo]:
    """Own nets and torchvision's classifiers; timm's, over a thousand, are what `timm.list_models()` says."""
    own = [ModelInfo(name, "own", _count_parameters(name), ()) for name in OWN_NETWORKS]
    published = [(name, list(_torchvision_models().get_model_weights(name))) for name in _torchvision_names()]
    return own + [
        ModelInfo(name, "torchvision", int(weights[-1].meta["num_params"]), tuple(w.name for w in weights))
        for name, weights in published
    ]


def check_name(name: str) -> None:
    """Refuses a name that cannot be built, as far as can be told without importing anything.

    Raises:
        FatalError: with the closest known names.
    """
    if name in OWN_NETWORKS:
        return
    module, colon, function = name.partition(":")
    if colon:
        if not module or not function:
            raise FatalError(f"model '{name}': expected timm:NAME, or module:function for a network of your own")
        return
    known = [*OWN_NETWORKS, *_torchvision_names()]
    if name in known:
        return
    if name in _torchvision_models().list_models():
        raise FatalError(f"model '{name}' of torchvision is not an image classifier")
    raise FatalError(f"model '{name}' is not known{did_you_mean(name, known, most=3)}")


def published_weights(name: str, weights: str) -> Any:
    """A member of torchvision's enumeration of weights; None for timm, which knows DEFAULT alone.

    Raises:
        FatalError: the model has no such weights.
    """
    if name.startswith("timm:"):
        if weights != "DEFAULT":
            raise FatalError(f"weights '{weights}': a timm model takes DEFAULT, with the tag in the name")
        return None
    if name not in _torchvision_names():
        raise FatalError(f"weights '{weights}': {name} has no published weights; name a file, `train` or `random`")
    choices = _torchvision_models().get_model_weights(name)
    if weights not in choices.__members__:
        raise FatalError(
            f"weights '{weights}': {name} has {', '.join(choices.__members__)}"
            f"{did_you_mean(weights, choices.__members__, most=3)}"
        )
    return choices[weights]


def _torchvision_models() -> Any:
    # torchvision takes seconds to import, which own networks do without.
    return importlib.import_module("torchvision.models")


def _torchvision_names() -> list[str]:
    names: list[str] = _torchvision_models().list_models(module=_torchvision_models())
    return names


def _count_parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in OWN_NETWORKS[name](10).parameters())


def _build_timm(name: str, classes: int) -> nn.Module:
    try:
        import timm  # noqa: PLC0415  (optional, and slow to import)
    except ImportError:
        raise FatalError(f"model '{name}' needs timm: pip install heatline[timm]") from None
    plain = name.removeprefix("timm:")
    if not timm.is_model(plain):
        raise FatalError(f"model '{name}': timm has no '{plain}'{did_you_mean(plain, timm.list_models(), most=3)}")
    network: nn.Module = timm.create_model(plain, pretrained=False, num_classes=classes)
    return network


def _build_from_function(name: str, classes: int) -> nn.Module:
    module_name, _, function_name = name.partition(":")
    # The code is the user's own and may raise anything, sys.exit() included; none of it is our bug to trace.
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise FatalError(
            f"model '{name}': cannot import '{module_name}': {_short(error)}; install it, or put its folder on "
            "PYTHONPATH"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        close = did_you_mean(function_name, public)
        raise FatalError(f"model '{name}': '{module_name}' has no function '{function_name}'{close}")
    try:
        network = function(num_classes=classes) if _takes_classes(function) else function()
    except (Exception, SystemExit) as error:
        raise FatalError(f"model '{name}': the function failed: {_short(error)}") from error
    if not isinstance(network, nn.Module):
        raise FatalError(f"model '{name}': the function returned {type(network).__name__}, expected nn.Module")
    return network


def _short(error: BaseException) -> str:
    """Type and first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _takes_classes(function: Callable[..., object]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        return False  # built-in types do not tell
    return any(p.name == "num_classes" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)

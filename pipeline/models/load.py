"""From a model's configuration to a classifier that methods and metrics can use."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipeline.errors import FatalError
from pipeline.models.build import AUXILIARY_HEADS, build_network, published_weights, source_digest
from pipeline.models.classifier import DEFAULT_ROWS, Classifier
from pipeline.models.config import ModelConfig
from pipeline.models.weights import Weights, read_weights, shorten, weights_metadata

Channels = tuple[float, float, float]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# The weights of these two expect pixels in [-1, 1]. torchvision takes ImageNet's normalisation for them too and turns
# it into this one inside the net (`transform_input`), which is off here.
_HALVES = (0.5, 0.5, 0.5)
_OTHER_NORMALISATION = {"inception_v3": (_HALVES, _HALVES), "googlenet": (_HALVES, _HALVES)}


def load_classifier(
    config: ModelConfig,
    *,
    classes: int,
    weights: str | Path | bytes | None = None,
    device: str | torch.device = "cpu",
    rows: int = DEFAULT_ROWS,
    seed: int = 0,
) -> Classifier:
    """Builds a model, loads its weights strictly and puts its normalisation inside.

    The number of logits is the configuration's, else what the weights say of themselves, else `classes`. The
    normalisation is the configuration's, else the one that comes with the weights, else `default_normalisation`.

    Args:
        config: the model of the spec.
        classes: number of classes of the data set.
        weights: where trained weights lie, or their bytes, in place of what the configuration names.
        device: where the model shall live.
        rows: images that one forward should hold.
        seed: initial weights under `weights: random`; without effect otherwise.

    Returns:
        The classifier in eval mode, its parameters frozen, in float32 whatever the file holds.

    Raises:
        FatalError: the weights are missing, unreadable, not finite, or of another architecture or classes.
    """
    if config.weights == "random" and weights is None:
        count = config.classes or classes
        network = build_network(config.name, count, seed=seed).float()
        mean, std = config.mean or _own_channels(network, "mean"), config.std or _own_channels(network, "std")
    else:
        loaded = _load_weights(config, weights)
        count = config.classes or _stated_classes(loaded) or classes
        network = build_network(config.name, count).float()
        _load_strictly(network, loaded, config.name, count)
        mean = config.mean or loaded.channels("mean") or _own_channels(network, "mean")
        std = config.std or loaded.channels("std") or _own_channels(network, "std")
    default_mean, default_std = default_normalisation(config.name)
    mean, std = mean or default_mean, std or default_std
    classifier = Classifier(
        network,
        classes=count,
        mean=mean,
        std=std,
        digest=network_digest(network, config.name, mean, std),
        rows=rows,
    )
    return classifier.to(device)


def default_normalisation(name: str) -> tuple[Channels, Channels]:
    """Mean and standard deviation of a model about which nothing else is known.

    Args:
        name: as in the spec.

    Returns:
        Mean and std, each per channel, in pixel scale [0, 1]: ImageNet's; 0.5 for inception_v3 and googlenet.

    Source: torchvision, `transform_input` of Inception3 and GoogLeNet: (x - 0.5) / 0.5.
    """
    return _OTHER_NORMALISATION.get(name, (IMAGENET_MEAN, IMAGENET_STD))


def network_digest(network: nn.Module, name: str, mean: Sequence[float], std: Sequence[float]) -> str:
    """Hash of everything that decides a model's outputs.

    Args:
        network: its parameters and buffers are read on the CPU.
        name: architecture, since two of them may hold the same tensors.
        mean, std: normalisation, per channel.

    Returns:
        16 hexadecimal digits of a SHA-256 over name, normalisation and, in the order of their names,
        each tensor's name, type, shape and bytes; for a network of one's own also over its source.
    """
    code = source_digest(name, network)
    identity = [name, [float(v) for v in mean], [float(v) for v in std], *([] if code is None else [code])]
    hashed = hashlib.sha256(json.dumps(identity).encode())
    for key, tensor in sorted(network.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        hashed.update(json.dumps([key, str(plain.dtype), list(plain.shape)]).encode())
        hashed.update(memoryview(plain.reshape(-1).view(torch.uint8).numpy()))
    return hashed.hexdigest()[:16]


def _load_weights(config: ModelConfig, override: str | Path | bytes | None) -> Weights:
    if override is not None:
        return read_weights(override)
    path = config.weights_path()
    if path is not None:
        return read_weights(path)
    if config.weights == "train":
        raise FatalError(f"model '{config.id}' is to be trained, and no trained weights were given")
    return _download(config)


def _download(config: ModelConfig) -> Weights:
    member = published_weights(config.name, config.weights)
    source = f"{config.weights} of {config.name}"
    try:
        if member is None:
            return _download_timm(config.name, source)
        # torchvision unpickles what it downloads unless it is told not to.
        state = member.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise FatalError(f"{source}: holds more than tensors, which is not loaded since it can run code") from error
    except (OSError, RuntimeError) as error:
        raise FatalError(f"{source} could not be downloaded: {error}") from error
    preset = member.transforms()
    mean, std = _OTHER_NORMALISATION.get(config.name, (preset.mean, preset.std))
    metadata = weights_metadata(config.name, len(member.meta["categories"]), mean, std)
    return Weights(state, metadata, source)


def _download_timm(name: str, source: str) -> Weights:
    build_network(name, 1)  # says what is wrong with the name or the installation
    import timm  # noqa: PLC0415  (optional)

    network = timm.create_model(name.removeprefix("timm:"), pretrained=True)
    classes, settings = cast("int", network.num_classes), cast("dict[str, Any]", network.pretrained_cfg)
    metadata = weights_metadata(name, classes, settings["mean"], settings["std"])
    return Weights(network.state_dict(), metadata, source)


def _own_channels(network: nn.Module, key: str) -> tuple[float, float, float] | None:
    """timm's networks know the normalisation that they were meant for."""
    settings = getattr(network, "pretrained_cfg", None)
    value = settings.get(key) if isinstance(settings, Mapping) else None
    return (float(value[0]), float(value[1]), float(value[2])) if value is not None and len(value) == 3 else None


def _stated_classes(weights: Weights) -> int | None:
    text = weights.metadata.get("num_classes")
    if text is None:
        return None
    if not text.isdigit() or int(text) == 0:
        raise FatalError(f"{weights.source}: metadata 'num_classes' is '{text}', expected a positive number")
    return int(text)


def _load_strictly(network: nn.Module, weights: Weights, name: str, classes: int) -> None:
    expected = network.state_dict()
    heads = AUXILIARY_HEADS.get(name, ())
    state = type(expected)((key, value) for key, value in weights.state.items() if not key.startswith(heads))
    # Files without layer versions are taken to be of the current layout. Counters of batches were added to
    # PyTorch later than many files, and eval mode does not read them.
    state._metadata = getattr(weights.state, "_metadata", expected._metadata)  # type: ignore[attr-defined]
    for key, value in expected.items():
        if key.endswith(".num_batches_tracked"):
            state.setdefault(key, value)
    broken = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise FatalError(f"{weights.source}: NaN or infinite weights in {shorten(broken)}")
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError:
        raise FatalError(_difference(expected, state, weights, name, classes)) from None


def _difference(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], weights: Weights, name: str, classes: int
) -> str:
    missing = [key for key in expected if key not in state]
    unexpected = sorted(key for key in state if key not in expected)
    reshaped = [key for key in expected if key in state and expected[key].shape != state[key].shape]
    counts = {state[key].shape[:1] for key in reshaped}
    only_last = all(
        expected[key].shape[:1] == (classes,) and expected[key].shape[1:] == state[key].shape[1:] for key in reshaped
    )
    if not missing and not unexpected and len(counts) == 1 and only_last:
        found = next(iter(counts))[0]
        return (
            f"{weights.source}: has {found} classes, {name} was built for {classes}; set the model's `classes: {found}`"
        )
    parts = [f"missing {shorten(missing)}"] if missing else []
    parts += [f"unexpected {shorten(unexpected)}"] if unexpected else []
    parts += [f"other shapes {shorten([_shapes(key, state, expected) for key in reshaped])}"] if reshaped else []
    stated = weights.metadata.get("architecture") or weights.metadata.get("arch")
    origin = f" (the file says {stated})" if stated else ""
    return f"{weights.source}: not the weights of {name}{origin}: {'; '.join(parts)}"


def _shapes(key: str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    return f"{key} {tuple(state[key].shape)} for {tuple(expected[key].shape)}"

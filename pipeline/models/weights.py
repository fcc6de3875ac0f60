"""Weights as bytes and as tensors: safetensors with metadata, or PyTorch files read without unpickling."""

from __future__ import annotations

import io
import json
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from pipeline.errors import FatalError
from pipeline.filesystem import open_filesystem, store_error, without_options

_NESTED = ("state_dict", "model_state_dict", "model")
_WRAPPERS = ("module.", "_orig_mod.")
# Layer names of DenseNet in files published before PyTorch 0.4.1, which torchvision still serves.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


@dataclass(frozen=True, slots=True)
class Weights:
    """Tensors by name, and what the file says about them.

    Attributes:
        state: parameters and buffers by dotted name.
        metadata: strings; read are `mean`, `std` (three numbers with commas), `num_classes`, `architecture`.
        source: file name for messages.
    """

    state: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    source: str = "weights"

    def channels(self, key: str) -> tuple[float, float, float] | None:
        """Three numbers of the metadata, such as `mean`; None where the key is absent.

        Raises:
            FatalError: the value is not three numbers.
        """
        text = self.metadata.get(key)
        if text is None:
            return None
        try:
            red, green, blue = (float(number) for number in text.split(","))
        except ValueError:
            raise FatalError(f"{self.source}: metadata '{key}' is '{text}', expected three numbers") from None
        return red, green, blue


def weights_metadata(architecture: str, classes: int, mean: Sequence[float], std: Sequence[float]) -> dict[str, str]:
    """What a file of weights says of itself, so that it loads without further settings."""
    return {
        "architecture": architecture,
        "num_classes": str(classes),
        "mean": ",".join(repr(float(value)) for value in mean),
        "std": ",".join(repr(float(value)) for value in std),
    }


def weights_bytes(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file: tensors, which may share memory or lie in any order, and metadata."""
    # A clone each, since safetensors refuses tensors that share memory (tied layers).
    tensors = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in state.items()}
    return safetensors.torch.save(tensors, dict(metadata))


def read_weights(source: str | Path | bytes) -> Weights:
    """Reads a file of weights.

    Args:
        source: path or URI (s3://, gs://, file://) of a safetensors or PyTorch file, told apart by the
            ending; or the bytes of a safetensors file.

    Returns:
        The tensors on the CPU, with wrappers around the names and around the dictionary taken off.

    Raises:
        FatalError: the file is missing or not what its ending says, or holds more than tensors.
    """
    if isinstance(source, bytes):
        return _parse_safetensors(source, "weights")
    content = _read_bytes(str(source))
    if without_options(str(source)).lower().endswith(".safetensors"):
        return _parse_safetensors(content, str(source))
    return Weights(_parse_torch(content, str(source)), {}, str(source))


def flat_state(loaded: object, source: str) -> Mapping[str, Tensor]:
    """Takes a dictionary of tensors out of a checkpoint and data-parallel prefixes off its names.

    Raises:
        FatalError: there is no dictionary of tensors in it.
    """
    state = loaded
    for key in _NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state:
        raise FatalError(f"{source}: expected a state dict (tensors by name), got {type(loaded).__name__}")
    strangers = [key for key, value in state.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if strangers:
        raise FatalError(
            f"{source}: expected tensors by name, got other things as well "
            f"({shorten([str(key) for key in strangers])}); save the model's state_dict()"
        )
    names = list(state)
    for prefix in _WRAPPERS:
        if all(name.startswith(prefix) for name in names):
            names = [name.removeprefix(prefix) for name in names]
    names = [_OLD_DENSENET.sub(r"\1\2", name) for name in names]
    flat = OrderedDict(zip(names, state.values(), strict=True))
    if list(flat) == list(state) and hasattr(state, "_metadata"):
        # Layer versions: some layers of torchvision convert old files by them.
        flat._metadata = state._metadata  # type: ignore[attr-defined]
    return flat


def _read_bytes(location: str) -> bytes:
    try:
        if "://" in location:
            system, path = open_filesystem(location)
            with system.open_input_stream(path) as stream:
                return bytes(stream.read())
        return Path(location).read_bytes()
    except FileNotFoundError:
        raise FatalError(f"{location}: no such file of weights") from None
    except pa.ArrowInvalid as error:
        raise FatalError(f"{location}: cannot be read: {_first_line(error)}") from None
    except OSError as error:
        failure = store_error(location, error)
        # An object store may answer later; a disk that fails goes on failing.
        raise (failure if "://" in location else FatalError(str(failure))) from None


def _parse_safetensors(content: bytes, source: str) -> Weights:
    try:
        state = safetensors.torch.load(content)
    except SafetensorError as error:
        raise FatalError(f"{source}: not a safetensors file, or cut short: {_first_line(error)}") from None
    # The header's length stands in the first eight bytes; safetensors reads metadata from files alone.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return Weights(flat_state(state, source), header.get("__metadata__") or {}, source)


def _parse_torch(content: bytes, source: str) -> Mapping[str, Tensor]:
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise FatalError(
            f"{source}: not a PyTorch file of tensors alone; other pickled objects are not loaded, since "
            "that can run code: save the model's state_dict(), best as safetensors"
        ) from None
    except Exception as error:
        # Bytes that somebody else made can bring up anything: a KeyError of an opcode, an IndexError of a stack.
        raise FatalError(f"{source}: not a PyTorch file, or cut short: {_first_line(error)}") from error
    return flat_state(loaded, source)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0] or type(error).__name__


def shorten(names: Sequence[str], shown: int = 3) -> str:
    """The first few of a list of names, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more

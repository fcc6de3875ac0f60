"""The parts of a network that hold parameters, in the order in which they run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pipeline.errors import FatalError
from pipeline.models.check import forward_once

PartKind = Literal["block", "layer"]
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True, slots=True)
class Part:
    """A block or layer of a network.

    Attributes:
        name: dotted module name of what it is or begins with; the parameter's own name, or several joined by `+`,
            where parameters lie in a module whose other parts stand by themselves (a class token).
        parameters: dotted names of its parameters.
        normalised: dotted names of its modules that keep running statistics.
    """

    name: str
    parameters: tuple[str, ...]
    normalised: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parts:
    """A network cut in two ways, each in the order in which the parts first run, from image to logits.

    Attributes:
        blocks: as people name a network's parts: `conv1`, `layer4.1`, `fc`.
        layers: every module that holds parameters itself.
    """

    blocks: tuple[Part, ...]
    layers: tuple[Part, ...]

    def of(self, kind: PartKind) -> tuple[Part, ...]:
        """The blocks or the layers."""
        return self.blocks if kind == "block" else self.layers

    def names(self, kind: PartKind) -> tuple[str, ...]:
        """Their names."""
        return tuple(part.name for part in self.of(kind))


def network_parts(network: nn.Module, height: int, width: int) -> Parts:
    """Cuts a network into blocks and into layers.

    One image is traced, and a part stands where one of its parameters is first used. The order of registration makes
    no difference, nor whether a module's `forward` is called (that of an attention's output projection is not). What
    the image does not meet (Inception's auxiliary head) is left out.

    The blocks are found from the root downwards. These are split into their children:

    - the root, and `nn.Sequential`, `nn.ModuleList` and `nn.ModuleDict` themselves;
    - a module that holds, at any depth, two or more children of one class of its own, each with two or more layers
      that mix features: a stack of repeated blocks (RegNet's stages, DenseNet's dense blocks, ViT's encoder). One
      convolution with its norm and activation does not count, so that the branches of an Inception block stay in it;
    - a module with more than half of the network's mixing layers: a network inside a wrapper.

    Everything else is one block: ResNet's `layer4.1`, SqueezeNet's `features.3`, `conv1`, `fc`. Layers that only scale
    and shift (norms, PReLU) belong to the block that runs before them where both have the same parent: `conv1` holds
    `bn1` too. Parameters that a split module holds itself are a block of their own.

    Args:
        network: takes normalised images (N, 3, H, W); traced in eval mode, and left as it was.
        height, width: of the images, in pixels.

    Returns:
        Blocks and layers; each parameter that is used is in one block and one layer.

    Raises:
        FatalError: the network does not take this size, or uses no parameter (compiled modules hide their work).

    Source: Adebayo et al. 2018, "Sanity checks for saliency maps", whose published code goes by such blocks
        (`Conv2d_1a_3x3` with its norm, `Mixed_7c`, `Logits`).
    """
    used = _first_uses(network, height, width)
    walk = _Walk(network, used)
    layers = sorted(walk.layers(), key=lambda piece: piece.time)
    blocks = _joined(sorted(walk.blocks(network, ""), key=lambda piece: piece.time))
    return Parts(*(tuple(piece.part for piece in pieces if piece.part.parameters) for pieces in (blocks, layers)))


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part, when it first runs, the module around it, and whether it only scales and shifts."""

    part: Part
    time: int
    parent: str
    scales: bool


class _Walk:
    """The cut of one network whose tensors' first uses are known."""

    def __init__(self, network: nn.Module, used: Mapping[int, int]) -> None:
        self._used = used
        # A parameter that several modules share belongs to the first of them.
        self._parameters = {owned: tensor for owned, tensor in network.named_parameters() if id(tensor) in used}
        self._owners = {name: module for name, module in network.named_modules() if self._times(name, module)}
        self._mixing = {name for name, module in self._owners.items() if not _scales(module)}

    def layers(self) -> Iterator[_Piece]:
        """Every module that holds tensors itself, in the order of registration."""
        for name in self._owners:
            yield self._piece(name, [name], direct=not name)

    def blocks(self, module: nn.Module, name: str) -> Iterator[_Piece]:
        """The blocks of a module, in the order of registration."""
        inside = [owner for owner in self._owners if owner == name or _below(owner, name)]
        if not inside:
            return
        if not self._splits(module, name):
            yield self._piece(name, inside)
            return
        if name in self._owners:
            yield self._piece(name, [name], direct=True)
        for child, inner in module.named_children():
            yield from self.blocks(inner, _joint(name, child))

    def _splits(self, module: nn.Module, name: str) -> bool:
        if name == "" or type(module) in _CONTAINERS:
            return True
        held = self._mixing_below(name)
        return bool(held) and (2 * len(held) > len(self._mixing) or self._holds_stack(module, name))

    def _mixing_below(self, name: str) -> list[str]:
        """The mixing layers inside a module, itself not counted."""
        return [owner for owner in self._mixing if _below(owner, name)]

    def _holds_stack(self, module: nn.Module, name: str) -> bool:
        for inner, candidate in module.named_modules(prefix=name):
            kinds = Counter(
                type(child)
                for key, child in candidate.named_children()
                if type(child) not in _CONTAINERS and len(self._mixing_below(f"{inner}.{key}")) > 1
            )
            if kinds and max(kinds.values()) > 1:
                return True
        return False

    def _piece(self, name: str, owners: Sequence[str], *, direct: bool = False) -> _Piece:
        held = [(owner, self._owners[owner]) for owner in owners]
        parameters = tuple(key for owner, module in held for key in self._held(owner, module))
        normalised = tuple(owner for owner, module in held if _statistics(module))
        time = min(time for owner, module in held for time in self._times(owner, module))
        scales = not direct and not any(owner in self._mixing for owner in owners)
        stem, _, last = name.rpartition(".")
        if direct and parameters:
            stem, last = name, "+".join(key.rpartition(".")[2] for key in parameters)
        return _Piece(Part(_joint(stem, last), parameters, normalised), time, stem, scales)

    def _held(self, name: str, module: nn.Module) -> list[str]:
        """Names of the used parameters that a module holds itself."""
        names = (_joint(name, key) for key, _ in module.named_parameters(recurse=False))
        return [key for key in names if key in self._parameters]

    def _times(self, name: str, module: nn.Module) -> list[int]:
        """First uses of the tensors that a module holds itself."""
        tensors = [*(self._parameters[key] for key in self._held(name, module)), *_statistics(module)]
        return [self._used[id(tensor)] for tensor in tensors if id(tensor) in self._used]


def _joined(pieces: Sequence[_Piece]) -> list[_Piece]:
    """Pieces in running order, with those that only scale joined to what runs before them beside them."""
    joined: list[_Piece] = []
    for piece in pieces:
        if piece.scales and joined and joined[-1].parent == piece.parent:
            before = joined[-1].part
            whole = Part(
                before.name, before.parameters + piece.part.parameters, before.normalised + piece.part.normalised
            )
            joined[-1] = replace(joined[-1], part=whole)
        else:
            joined.append(piece)
    return joined


def _joint(outer: str, inner: str) -> str:
    return f"{outer}.{inner}" if outer else inner


def _below(name: str, outer: str) -> bool:
    return name.startswith(f"{outer}.") if outer else name != ""


def _statistics(module: nn.Module) -> list[Tensor]:
    """Running statistics that a module keeps and can reset."""
    mean = getattr(module, "running_mean", None)
    return [mean] if isinstance(mean, Tensor) and callable(getattr(module, "reset_running_stats", None)) else []


def _scales(module: nn.Module) -> bool:
    """Whether the parameters that a module holds itself only scale and shift features."""
    return isinstance(module, nn.LayerNorm) or all(tensor.dim() < 2 for tensor in module.parameters(recurse=False))


def _first_uses(network: nn.Module, height: int, width: int) -> dict[int, int]:
    """When each parameter and running mean is first used, by the tensor's id."""
    uses = _Uses([*network.parameters(), *(one for module in network.modules() for one in _statistics(module))])
    modes = [(module, module.training) for module in network.modules()]
    handle = network.register_forward_pre_hook(uses.start)
    try:
        network.eval()
        with uses:
            forward_once(network, torch.full((2, 3, height, width), 0.5))
    finally:
        handle.remove()
        for module, training in modes:
            module.training = training
    if not uses.times:
        raise FatalError("the network's forward uses none of its parameters where PyTorch's operations can be seen")
    return uses.times


class _Uses(TorchFunctionMode):
    """Notes the first use of each watched tensor by an operation of PyTorch."""

    def __init__(self, watched: Sequence[Tensor]) -> None:
        super().__init__()
        self.times: dict[int, int] = {}
        self._watched = {id(tensor) for tensor in watched}
        self._clock = 0

    def start(self, module: nn.Module, inputs: object) -> None:
        """Forward pre-hook of the network: what was done before was none of its doing."""
        del module, inputs
        self.times.clear()

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self._clock += 1
        for tensor in _tensors([*args, *kwargs.values()]):
            if id(tensor) in self._watched:
                self.times.setdefault(id(tensor), self._clock)
        return func(*args, **kwargs)


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)

"""Which layer of a network holds its last feature map."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import FatalError
from pipeline.models.check import forward_once


@dataclass(frozen=True, slots=True)
class Call:
    """One module that ran, with the tensors that went in and came out (None where that was no tensor)."""

    name: str
    module: nn.Module
    received: Tensor | None
    returned: Tensor | None


def last_spatial_layer(network: nn.Module, height: int, width: int) -> str:
    """The module whose output is the last feature map before the network pools or flattens it away.

    One image is traced. Of the modules that ran exactly once, in the order in which they finished, the last
    counts whose output is (N, C, h, w) with h and w above 1. Since an outer module finishes after its inner
    ones, this is the whole block, after its addition and activation (`layer4` of a ResNet). Passed over:

    - poolings (by class name) and modules that return a pooling's output, dropout, identities;
    - blocks that take the image itself: they are the network but for its head (`features` of a VGG);
    - maps with one channel a class and no parameters after them: these are the logits before their pooling
      (SqueezeNet), not features.

    Args:
        network: takes (N, 3, H, W); its mode and hooks are left as they were.
        height, width: of the images, in pixels.

    Returns:
        The dotted name, for `network.get_submodule`.

    Raises:
        FatalError: after its last map the network works on tokens (vision transformers), the last map has its
            channels last, there is none, or the network does not take this size.
    """
    image = torch.full((1, 3, height, width), 0.5)
    with _traced(network) as calls:
        logits = forward_once(network, image)
    classes = logits.shape[-1] if isinstance(logits, Tensor) else None
    given = calls[-1].received if calls else None
    times_run = [call.name for call in calls]
    pooled = [call.returned for call in calls if _is_pooling(call.module)]
    parameters_follow = False
    for call in reversed(calls):
        output, own = call.returned, any(True for _ in call.module.parameters(recurse=False))
        if output is None or call.name == "":
            continue
        if output.dim() == 3 and output.shape[1] > 1 and own:
            raise FatalError(
                f"the network has no spatial layer: after its last map it works on tokens ('{call.name}' "
                f"returns {tuple(output.shape)}); name a layer, or use another method"
            )
        if output.dim() == 4 and _is_channels_last(output, height / width):
            raise FatalError(
                f"the network has no spatial layer with channels first: '{call.name}' returns (N, H, W, C) = "
                f"{tuple(output.shape)}; name a layer that returns (N, C, H, W)"
            )
        takes_image = call.received is given and any(True for _ in call.module.children())
        returns_pooled = any(output is tensor for tensor in pooled)
        is_class_map = output.dim() == 4 and output.shape[1] == classes and not parameters_follow
        usable = not (takes_image or returns_pooled or is_class_map or _does_nothing(call.module))
        if usable and _is_map(output) and times_run.count(call.name) == 1:
            return call.name
        parameters_follow = parameters_follow or own
    raise FatalError(f"the network has no spatial layer: no map larger than one pixel at {height}x{width}")


@contextmanager
def _traced(network: nn.Module) -> Iterator[list[Call]]:
    """Inside the block the network is in eval mode; its modules note their calls as they finish."""
    calls: list[Call] = []
    modes = [(module, module.training) for module in network.modules()]
    handles = []
    try:
        network.eval()
        for name, module in network.named_modules():
            handles.append(module.register_forward_hook(_note(calls, name)))
        yield calls
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training


def _note(calls: list[Call], name: str) -> Any:
    def hook(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        received = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
        calls.append(Call(name, module, received, output if isinstance(output, Tensor) else None))

    return hook


def _is_map(output: Tensor) -> bool:
    return output.dim() == 4 and output.shape[2] > 1 and output.shape[3] > 1


def _is_channels_last(output: Tensor, aspect: float) -> bool:
    """A map keeps the image's aspect; (N, H, W, C) does so in its second and third place instead."""
    _, first, second, third = output.shape
    if first < 2 or second < 2 or third < 2:
        return False
    as_first = abs(second / third / aspect - 1)
    as_last = abs(first / second / aspect - 1)
    return as_first > 0.5 and as_last < 0.5


def _is_pooling(module: nn.Module) -> bool:
    return "pool" in type(module).__name__.lower()


def _does_nothing(module: nn.Module) -> bool:
    return isinstance(module, nn.Identity) or "drop" in type(module).__name__.lower()

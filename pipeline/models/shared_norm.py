"""Batch norm whose statistics are those of a batch that several processes have parts of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.distributed.nn.functional as collective
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from pipeline.models.processes import Processes


@contextmanager
def shared_batch_norm(processes: Processes) -> Iterator[None]:
    """Inside the block batch norm in training takes its statistics from the images of all processes.

    A network normalised by its own part of each batch would be another one for every number of processes. The calls of
    `F.batch_norm` are intercepted, so that every kind of layer that makes one is reached and none is exchanged.
    """
    if processes.count == 1:
        yield
        return
    with _Shared():
        yield


class _Shared(TorchFunctionMode):
    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm` over all processes."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if input.device.type == "cpu":
        return _on_cpu(input, running_mean, running_var, weight, bias, momentum, eps)
    layer = _layer(input.shape[1], eps, momentum, weight is not None, running_mean is not None)
    tensors = {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var}
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    normalised: Tensor = functional_call(layer, given, (input,))
    return normalised


@cache
def _layer(channels: int, eps: float, momentum: float, affine: bool, tracked: bool) -> nn.Module:
    """PyTorch's own layer, which works on GPUs alone; its tensors are replaced in each call."""
    return nn.SyncBatchNorm(channels, eps, momentum, affine, tracked).train()


def _on_cpu(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """The same in arithmetic that autograd follows, through the sums over all processes too."""
    shape = (1, -1, *[1] * (input.dim() - 2))
    others = [0, *range(2, input.dim())]
    count = _summed(torch.tensor(float(input.numel() // input.shape[1])))
    values = input.float()
    mean = _summed(values.sum(others)) / count
    centred = values - mean.view(shape)
    variance = _summed(centred.square().sum(others)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * count / (count - 1)).to(running_var.dtype), momentum)
    normalised: Tensor = centred * (variance + eps).rsqrt().view(shape)
    if weight is not None:
        normalised = normalised * weight.view(shape)
    if bias is not None:
        normalised = normalised + bias.view(shape)
    return normalised.to(input.dtype)


def _summed(value: Tensor) -> Tensor:
    """The sum over all processes, through which gradients go back to each of them."""
    total: Tensor = collective.all_reduce(value)  # type: ignore[no-untyped-call]
    return total

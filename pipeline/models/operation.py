"""Operations of a forward beside its activations, handed to rules; the network stays as it is."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Never

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pipeline.errors import FatalError


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of an operation in a forward.

    Attributes:
        index: the how-manieth call that a rule saw in this forward, from 0.
        kind: `convolution`, `weighted`, `batch_norm`, `average`, `sum`, `product`, `max_pool`, `clamp` or `unruled`.
        name: the function's own name.
        inputs: the tensor arguments that depend on the image (that require a gradient), in their order.
        arguments: every argument by its name, for the kinds that name them (`_NAMES`); else empty.
        function: the same call on other inputs, out of place.
    """

    index: int
    kind: str
    name: str
    inputs: tuple[Tensor, ...]
    arguments: Mapping[str, Any]
    function: Callable[..., Tensor]


Rule = Callable[[Operation], Tensor]
"""What stands in for an operation: the call in, a new tensor of the shape of its output out."""


@contextmanager
def replaced_operations(rules: Mapping[str, Rule]) -> Iterator[None]:
    """Inside the block every operation of a named kind is what its rule makes of it; other kinds pass.

    What depends on the image is told by `requires_grad`: the images must require a gradient. Outside
    `replaced_activations`, which then sees its calls first. One forward a block.

    Args:
        rules: the rule of each kind.
    """
    with _Interception(rules):
        yield


def refusing(method: str) -> Rule:
    """A rule for operations that a method has no rule for: it says so."""

    def refuse(operation: Operation) -> Never:
        raise FatalError(
            f"{method}: no rule for '{operation.name}' of features that depend on the image; "
            "it explains convolutional networks (choose a gradient or perturbation method for this model)"
        )

    return refuse


def ruled(
    output: Tensor, backward: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], saved: Sequence[Tensor] = ()
) -> Tensor:
    """An output with a backward pass of the rule's own.

    Args:
        output: the values, a tensor without a graph that nobody else holds.
        backward: takes the output's gradient and the saved tensors; returns one gradient for each input. It must
            not hold the output or anything with its graph.
        inputs: what the output depends on.
        saved: what backward needs, kept as long as the graph.

    Returns:
        The output, part of the graph.
    """
    result: Tensor = _Ruled.apply([output], backward, len(inputs), *inputs, *saved)
    return result


class _Ruled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, output: list[Tensor], backward: Callable[..., Sequence[Tensor]], count: int, *tensors: Tensor
    ) -> Tensor:
        ctx.rule = backward
        ctx.rest = len(tensors) - count
        ctx.save_for_backward(*tensors[count:])
        # In a list: an argument that is returned would become a view.
        return output[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return None, None, None, *ctx.rule(gradients[0], *ctx.saved_tensors), *[None] * ctx.rest


def _functions(*names: str) -> tuple[Any, ...]:
    """The functions of these names in torch, torch.nn.functional and Tensor."""
    found = [getattr(place, name, None) for place in (torch, F, Tensor) for name in names]
    return tuple(function for function in found if function is not None)


_KINDS: dict[str, tuple[Any, ...]] = {
    "convolution": _functions("conv2d"),
    "weighted": _functions(
        "linear", "conv1d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
        "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "bilinear", "mv", "__matmul__", "__rmatmul__",
    ),
    "batch_norm": _functions("batch_norm"),
    "average": _functions(
        "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
        "mean", "sum",
    ),
    "sum": _functions("add", "add_", "sub", "sub_", "subtract", "rsub", "__add__", "__iadd__", "__isub__", "__rsub__"),
    "product": _functions("mul", "mul_", "multiply", "multiply_", "__mul__", "__rmul__", "__imul__"),
    "max_pool": _functions("max_pool2d", "adaptive_max_pool2d"),
    "clamp": _functions("clamp", "clamp_", "clip", "clip_", "clamp_min", "clamp_max", "hardtanh", "hardtanh_"),
    "unruled": _functions(
        "softmax", "softmin", "log_softmax", "layer_norm", "rms_norm", "group_norm", "instance_norm",
        "local_response_norm", "normalize", "norm", "scaled_dot_product_attention", "multi_head_attention_forward",
        "pow", "pow_", "square", "exp", "log", "log1p", "sqrt", "rsqrt", "abs", "reciprocal", "sin", "cos",
        "maximum", "minimum", "max", "min", "amax", "amin", "prod", "cumprod", "var", "std", "logsumexp", "glu",
        "threshold", "hardshrink", "softshrink", "tanhshrink", "erf", "max_pool1d", "max_pool3d", "lp_pool2d",
        "adaptive_max_pool1d", "adaptive_max_pool3d", "fractional_max_pool2d", "topk", "sort",
    ),
    "quotient": _functions("div", "div_", "divide", "true_divide", "__truediv__", "__rtruediv__", "__rdiv__"),
}  # fmt: skip
_KIND_OF = {function: kind for kind, functions in _KINDS.items() for function in functions}
# Functions that work in place, with the one that does the same on a new tensor.
_PLAIN: dict[Any, Callable[..., Tensor]] = {
    Tensor.add_: torch.add, Tensor.sub_: torch.sub, Tensor.mul_: torch.mul, Tensor.multiply_: torch.mul,
    Tensor.__iadd__: torch.add, Tensor.__isub__: torch.sub, Tensor.__imul__: torch.mul,
}  # fmt: skip
_NAMES = {
    "convolution": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "batch_norm": ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
}


class _Interception(TorchFunctionMode):
    """Hands operations to their rules; everything else passes."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        super().__init__()
        self._rules = rules
        self._calls = 0
        # Tensors that the network wanted changed in place and that a rule left as they were.
        self._stale: dict[int, weakref.ref[Tensor]] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._stale and self._uses_stale((*args, *kwargs.values())):
            raise FatalError(
                f"the network uses a tensor again after changing it in place (in '{function.__name__}'); "
                "write `x = x + y` in its forward in place of `x.add_(y)`"
            )
        kind = _kind(function, args)
        rule = None if kind is None else self._rules.get(kind)
        if kind is None or rule is None:
            return function(*args, **kwargs)
        operation = _operation(self._calls, kind, function, args, kwargs)
        # A sum or product with a constant is affine, and a matrix on its own is what any rule expects.
        if len(operation.inputs) < (2 if kind in ("sum", "product") else 1) and kind not in ("convolution", "weighted"):
            return function(*args, **kwargs)
        self._calls += 1
        result = rule(operation)
        if function in _PLAIN:
            identity = id(args[0])
            self._stale[identity] = weakref.ref(args[0], lambda _: self._stale.pop(identity, None))
        return result

    def _uses_stale(self, values: tuple[Any, ...] | list[Any]) -> bool:
        return any(
            self._uses_stale(value) if isinstance(value, (tuple, list)) else id(value) in self._stale
            for value in values
        )


def _kind(function: Any, args: tuple[Any, ...]) -> str | None:
    kind = _KIND_OF.get(function)
    if kind == "quotient":
        divisor = args[0] if function.__name__.startswith("__r") else args[-1]
        return "unruled" if _depends(divisor) else None
    if kind == "weighted" and sum(map(_depends, args)) > 1:
        return "unruled"
    return kind


def _depends(value: Any) -> bool:
    """Whether a value depends on the image. A parameter does not, also where it is not frozen."""
    return isinstance(value, Tensor) and value.requires_grad and not isinstance(value, nn.Parameter)


def _operation(index: int, kind: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Operation:
    places = [place for place, value in enumerate(args) if _depends(value)]
    keys = [key for key, value in kwargs.items() if _depends(value)]
    plain = _PLAIN.get(function, function)

    def again(*inputs: Tensor, **others: Any) -> Tensor:
        """The call on other inputs; further named arguments take the place of its own."""
        given = dict(zip([*places, *keys], inputs, strict=True))
        positional = [given.get(place, value) for place, value in enumerate(args)]
        named = {key: given.get(key, value) for key, value in kwargs.items()}
        result: Tensor = plain(*positional, **named | others)
        return result

    names = _NAMES.get(kind, ())
    arguments = dict(zip(names, args, strict=False)) | (kwargs if names else {})
    inputs = (*(args[place] for place in places), *(kwargs[key] for key in keys))
    name = getattr(function, "__name__", kind)
    return Operation(index, kind, kind if name == "fn" else name, inputs, arguments, again)

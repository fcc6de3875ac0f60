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
from pipeline.models.activation import Activation, replaced_activations
from pipeline.models.activation import Rule as ActivationRule


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of an operation in a forward.

    Attributes:
        index: the how-manieth call that a rule saw in this forward, from 0.
        kind: `convolution`, `weighted`, `batch_norm`, `average`, `sum`, `product`, `max_pool`, `clamp` or `unruled`
            (whatever is not known to be linear).
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
def replaced_operations(rules: Mapping[str, Rule], activation: ActivationRule) -> Iterator[None]:
    """Inside the block every operation of a named kind is what its rule makes of it, and so is every activation.

    Other kinds pass. What depends on the image is told by `requires_grad`: the images must require a gradient. What a
    rule calls goes to no rule. One forward a block.

    Args:
        rules: the rule of each kind. That of `unruled` is asked after the call has run, and is there to refuse it.
        activation: the rule of the activations; see `replaced_activations`.
    """
    operations = _Interception(rules)

    def alone(call: Activation, features: Tensor) -> Tensor:
        operations.check_fresh((features,), call.kind)
        with torch._C.DisableTorchFunction():
            return activation(call, features)

    with operations, replaced_activations(alone):
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
    "sum": _functions(
        "add", "add_", "sub", "sub_", "subtract", "subtract_", "rsub", "__add__", "__radd__", "__iadd__", "__sub__",
        "__isub__", "__rsub__",
    ),
    "product": _functions("mul", "mul_", "multiply", "multiply_", "__mul__", "__rmul__", "__imul__"),
    "max_pool": _functions("max_pool2d", "adaptive_max_pool2d"),
    "clamp": _functions(
        "clamp", "clamp_", "clip", "clip_", "clamp_min", "clamp_min_", "clamp_max", "clamp_max_", "hardtanh",
        "hardtanh_",
    ),
    "quotient": _functions(
        "div", "div_", "divide", "divide_", "true_divide", "true_divide_", "__truediv__", "__itruediv__",
        "__rtruediv__", "__rdiv__",
    ),
    # Linear in the features, and without a sum of two of them: no rule is needed.
    "linear": (
        *_functions(
            "view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "ravel", "squeeze", "squeeze_",
            "unsqueeze", "unsqueeze_", "permute", "transpose", "transpose_", "t", "t_", "swapaxes", "swapdims",
            "movedim", "moveaxis", "contiguous", "clone", "to", "type", "type_as", "float", "double", "half",
            "bfloat16", "cpu", "cuda", "expand", "expand_as", "repeat", "repeat_interleave", "tile", "broadcast_to",
            "broadcast_tensors", "cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "split",
            "split_with_sizes", "chunk",
            "tensor_split", "unbind", "narrow", "select", "index_select", "gather", "diagonal", "unfold", "fold",
            "roll", "flip", "fliplr", "flipud", "rot90", "pad", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
            "native_channel_shuffle", "interpolate", "upsample", "upsample_nearest", "upsample_bilinear", "dropout",
            "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "neg", "neg_", "negative",
            "__neg__", "positive", "__pos__", "__getitem__", "copy_", "requires_grad_",
        ),
        *(getattr(Tensor, name).__get__ for name in ("T", "mT", "H", "mH")),
    ),
}  # fmt: skip
_KIND_OF = {function: kind for kind, functions in _KINDS.items() for function in functions}
# Functions that work in place, with the one that does the same on a new tensor.
_PLAIN: dict[Any, Callable[..., Tensor]] = {
    Tensor.add_: torch.add, Tensor.sub_: torch.sub, Tensor.subtract_: torch.sub,
    Tensor.mul_: torch.mul, Tensor.multiply_: torch.mul,
    Tensor.__iadd__: torch.add, Tensor.__isub__: torch.sub, Tensor.__imul__: torch.mul,
    torch.clamp_: torch.clamp, Tensor.clamp_: torch.clamp, torch.clip_: torch.clamp, Tensor.clip_: torch.clamp,
    torch.clamp_min_: torch.clamp_min, Tensor.clamp_min_: torch.clamp_min,
    torch.clamp_max_: torch.clamp_max, Tensor.clamp_max_: torch.clamp_max, F.hardtanh_: F.hardtanh,
    Tensor.div_: torch.div, Tensor.divide_: torch.div, Tensor.true_divide_: torch.div, Tensor.__itruediv__: torch.div,
    torch.neg_: torch.neg, Tensor.neg_: torch.neg,
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
        # Tensors that the network wanted changed in place and that were left as they are.
        self._stale: dict[int, weakref.ref[Tensor]] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        values = (*args, *kwargs.values())
        self.check_fresh(values, getattr(function, "__name__", "?"))
        if function not in _PLAIN or not any(_features(values)):
            return self._result(function, args, kwargs)
        # Rules keep values, which must stay as they are.
        changed = args[0]
        result = self._result(_PLAIN[function], args, kwargs)
        identity = id(changed)
        self._stale[identity] = weakref.ref(changed, lambda _: self._stale.pop(identity, None))
        return result

    def _result(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kind = _kind(function, args, kwargs)
        rule = self._rules.get(kind)
        if rule is None:
            return function(*args, **kwargs)
        if kind == "unruled":
            # Only the result tells whether features or, for example, a shape was asked for.
            result = function(*args, **kwargs)
            found = any(_features((result,))) and any(_features((*args, *kwargs.values())))
            return rule(_operation(self._calls, kind, function, args, kwargs)) if found else result
        operation = _operation(self._calls, kind, function, args, kwargs)
        # A sum or product with a constant is affine, and a matrix on its own is what any rule expects.
        if len(operation.inputs) < (2 if kind in ("sum", "product") else 1) and kind not in ("convolution", "weighted"):
            return function(*args, **kwargs)
        self._calls += 1
        return rule(operation)

    def check_fresh(self, values: Sequence[Any], name: str) -> None:
        """Refuses a call on a tensor that the network wanted changed in place, and that is as it was."""
        if self._stale and self._uses_stale(values):
            raise FatalError(
                f"the network uses a tensor again after changing it in place (in '{name}'); "
                "write `x = x + y` in its forward in place of `x.add_(y)`"
            )

    def _uses_stale(self, values: Sequence[Any]) -> bool:
        return any(
            self._uses_stale(value) if isinstance(value, (tuple, list)) else id(value) in self._stale
            for value in values
        )


def _kind(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The kind of a call; `linear` also for a quotient by a constant."""
    kind = _KIND_OF.get(function, "unruled")
    if kind == "quotient":
        divisor = args[0] if function.__name__.startswith("__r") else args[1] if len(args) > 1 else kwargs["other"]
        return "unruled" if _depends(divisor) or kwargs.get("rounding_mode") is not None else "linear"
    several = sum(1 for _ in _features((*args, *kwargs.values()))) > 1
    return "unruled" if several and kind in ("weighted", "convolution", "batch_norm", "clamp") else kind


def _features(values: Sequence[Any]) -> Iterator[bool]:
    """True for every value, also inside lists and tuples, that depends on the image."""
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _features(value)
        elif _depends(value):
            yield True


def _depends(value: Any) -> bool:
    """Whether a value depends on the image. A parameter does not, also where it is not frozen."""
    return isinstance(value, Tensor) and value.requires_grad and not isinstance(value, nn.Parameter)


def _operation(index: int, kind: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Operation:
    places = [place for place, value in enumerate(args) if _depends(value)]
    keys = [key for key, value in kwargs.items() if _depends(value)]

    def again(*inputs: Tensor, **others: Any) -> Tensor:
        """The call on other inputs; further named arguments take the place of its own."""
        given = dict(zip([*places, *keys], inputs, strict=True))
        positional = [given.get(place, value) for place, value in enumerate(args)]
        named = {key: given.get(key, value) for key, value in kwargs.items()}
        result: Tensor = function(*positional, **named | others)
        return result

    names = _NAMES.get(kind, ())
    arguments = dict(zip(names, args, strict=False)) | (kwargs if names else {})
    inputs = (*(args[place] for place in places), *(kwargs[key] for key in keys))
    name = getattr(function, "__name__", kind)
    return Operation(index, kind, kind if name == "fn" else name, inputs, arguments, again)

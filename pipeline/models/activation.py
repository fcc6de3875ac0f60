"""Every activation function that a forward calls, handed to a rule; the network stays as it is."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from pipeline.errors import FatalError
from pipeline.models.classifier import Classifier
from pipeline.models.probe import asked_once, probe_images, same_values


@dataclass(frozen=True, slots=True)
class Activation:
    """One call of an activation function in a forward.

    Attributes:
        index: the how-manieth call of the forward, from 0. A module that is used twice has two calls.
        kind: `relu`, `relu6`, `gelu`, `silu`, `hardswish`, … (`KINDS`).
        function: the function itself, out of place, with the parameters of the call.
        in_place: whether the network asked for it in the memory of its input. Then a rule may work there too and
            return its input, changed (`rectified`); it need not.
    """

    index: int
    kind: str
    function: Callable[[Tensor], Tensor]
    in_place: bool = False


Rule = Callable[[Activation, Tensor], Tensor]
"""What stands in for an activation: the call and its input (N, …) in, a tensor of its shape out."""

Backward = Callable[[Tensor, Tensor, float], Tensor]
"""A backward rule of a ReLU: its output, the gradient that arrives, and the value at which it saturates (infinity, or 6
for ReLU6) in, the gradient that goes on out; all (N, …). What comes in must not be written to."""

# How each kind can be called. A function that only works in place stands in `_PLAIN` as well.
_NAMED: dict[str, Sequence[Callable[..., Tensor]]] = {
    "relu": (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_),
    "relu6": (F.relu6,),
    "leaky_relu": (F.leaky_relu, F.leaky_relu_),
    "prelu": (F.prelu, torch.prelu, Tensor.prelu),
    "rrelu": (F.rrelu, torch.rrelu, F.rrelu_),
    "elu": (F.elu, F.elu_),
    "selu": (F.selu, torch.selu, torch.selu_),
    "celu": (F.celu, torch.celu, torch.celu_),
    "gelu": (F.gelu,),
    "silu": (F.silu,),
    "mish": (F.mish,),
    "hardswish": (F.hardswish,),
    "hardsigmoid": (F.hardsigmoid,),
    "softplus": (F.softplus,),
    "softsign": (F.softsign,),
    "logsigmoid": (F.logsigmoid,),
    "sigmoid": (F.sigmoid, torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_),
    "tanh": (F.tanh, torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_),
}
_KIND_OF = {function: kind for kind, functions in _NAMED.items() for function in functions}
# Functions that are an activation for some of their arguments: what the first two are called, and their defaults.
_BOUNDS: dict[Any, tuple[tuple[str, str], tuple[float | None, float | None]]] = {
    **dict.fromkeys((F.hardtanh, F.hardtanh_), (("min_val", "max_val"), (-1.0, 1.0))),
    **dict.fromkeys((torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_), (("min", "max"), (None, None))),
    **dict.fromkeys((torch.clip, torch.clip_, Tensor.clip, Tensor.clip_), (("min", "max"), (None, None))),
    **dict.fromkeys((torch.clamp_min, torch.clamp_min_), (("min", ""), (None, None))),
    **dict.fromkeys((Tensor.clamp_min, Tensor.clamp_min_), (("min", ""), (None, None))),
    **dict.fromkeys((F.threshold, torch.threshold, torch.threshold_), (("threshold", "value"), (None, None))),
}
KINDS = (*_NAMED, "hardtanh")
# The kinds that cut off below zero, with the value at which they saturate.
RECTIFIERS = {"relu": math.inf, "relu6": 6.0}


@contextmanager
def replaced_activations(rule: Rule) -> Iterator[None]:
    """Inside the block every activation of a forward is what the rule makes of it.

    Modules, functions, methods, reused modules and in-place calls are seen alike; nothing is put on the model, so
    nothing can be left on it. One forward a block: the calls are counted from its start.

    Args:
        rule: called for each activation in turn. What it returns becomes the activation's output, also where the
            network asked for it in place: whoever else holds that very tensor finds it changed, as without the rule,
            and a change of a view shows in the tensor that it is a part of. Not seen is a new tensor that takes the
            place of an activation in place through a view made before, or as what the network returns
            (`activation_kinds` finds out). The backward pass goes through what the rule did.
    """
    with _Interception(rule):
        yield


@asked_once
def activation_kinds(model: Classifier, height: int, width: int) -> tuple[str, ...]:
    """The kinds of a model's activations in the order of their calls; two forwards of two drawn images.

    Raises:
        FatalError: the logits are not those of the network itself when each activation is replaced by itself.
    """
    kinds: list[str] = []

    def note(activation: Activation, features: Tensor) -> Tensor:
        kinds.append(activation.kind)
        return activation.function(features)

    images = probe_images(model, 2, height, width)
    with torch.no_grad():
        expected = model(images)
        with replaced_activations(note):
            found = model(images)
    if not same_values(found, expected):
        raise FatalError(
            f"the logits change by {float((found - expected).abs().max()):.3g} when each activation is replaced by"
            " itself, so no rule can take its place; write those of a tensor that has views or is returned out of place"
            " (inplace=False), and leave randomness out of the forward"
        )
    return tuple(kinds)


def unruled(method: str, model: Classifier, height: int, width: int, ruled: Collection[str]) -> str | None:
    """Why a rule for some kinds of activations cannot be used on a model, in one line, or None.

    Args:
        method: whose rule it is, to begin the line with.
        model: the model, asked by two forwards.
        height, width: of its images.
        ruled: the kinds that the rule has a meaning for.
    """
    try:
        kinds = activation_kinds(model, height, width)
    except FatalError as error:
        return f"{method}: {error}"
    if not kinds:
        return f"{method}: no activation function is seen in the model's forward (a scripted or compiled network?)"
    strange = [kind for kind in dict.fromkeys(kinds) if kind not in ruled]
    if not strange:
        return None
    return f"{method}: its rule has no meaning for {', '.join(strange)}; it is defined for {', '.join(sorted(ruled))}"


def rectified(activation: Activation, features: Tensor, backward: Backward) -> Tensor:
    """A ReLU or ReLU6 with a backward rule of its own; in place where the network asked for it.

    Args:
        activation: a call of kind `relu` or `relu6`.
        features: its input, (N, …).
        backward: what becomes of the gradient.

    Returns:
        (N, …), the values of the activation itself.

    Raises:
        FatalError: an activation of another kind.
    """
    if activation.kind not in RECTIFIERS:
        raise FatalError(f"the rule has no meaning for {activation.kind}; it is defined for {', '.join(RECTIFIERS)}")
    limit = RECTIFIERS[activation.kind]
    result: Tensor = _Rectified.apply(features, limit, activation.in_place, backward)
    return result


class _Rectified(torch.autograd.Function):
    """min(max(x, 0), limit), with a backward rule."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, limit: float, in_place: bool, backward: Backward) -> Tensor:
        if in_place:
            ctx.mark_dirty(features)
        result = features if in_place else torch.empty_like(features)
        torch.clamp(features, 0, limit, out=result)
        ctx.save_for_backward(result)
        ctx.limit, ctx.rule = limit, backward
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (result,) = ctx.saved_tensors
        return ctx.rule(result, gradient, ctx.limit), None, None, None


class _Interception(TorchFunctionMode):
    """Hands activation calls to the rule; everything else passes."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self._rule = rule
        self._calls = 0
        # What took the place of a tensor that the network asked to be changed in place, by the identity of that tensor
        # and as long as somebody holds it.
        self._changed: dict[int, tuple[weakref.ref[Tensor], Tensor]] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._changed:
            args, kwargs = self._current(args), self._current(kwargs)
        kind = _kind(function, args, kwargs)
        if kind is None:
            return function(*args, **kwargs)
        # `input` by name is allowed: F.relu(input=x).
        features = args[0] if args else kwargs.pop("input")
        rest, in_place, plain = _out_of_place(function, args[1:], kwargs)
        activation = Activation(self._calls, kind, lambda given: plain(given, *rest, **kwargs), in_place)
        self._calls += 1
        if in_place and features._is_view():
            # The tensor that it is a part of has to change as well.
            return features.copy_(self._rule(replace(activation, in_place=False), features.clone()))
        result = self._rule(activation, features)
        if in_place and result is not features:
            # Whoever else holds the tensor counts on finding it changed. To write into it would cost a copy, and break
            # the backward pass of functions that keep their input.
            identity = id(features)
            reference = weakref.ref(features, lambda _: self._changed.pop(identity, None))
            self._changed[identity] = (reference, result)
        return result

    def _current(self, value: Any) -> Any:
        """Arguments of a call, with every tensor that was changed in place as it is now."""
        if isinstance(value, Tensor):
            changed = self._changed.get(id(value))
            return value if changed is None else self._current(changed[1])
        if type(value) in (tuple, list):
            return type(value)(self._current(item) for item in value)
        return {key: self._current(item) for key, item in value.items()} if isinstance(value, dict) else value


def _kind(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """The kind of an activation call, or None for any other call."""
    if function not in _BOUNDS:
        return _KIND_OF.get(function)
    names, defaults = _BOUNDS[function]
    first, second = (
        args[place] if len(args) > place else kwargs.get(name, default)
        for place, name, default in zip((1, 2), names, defaults, strict=True)
    )
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        return None
    if names[0] == "threshold":
        return "relu" if (first, second) == (0, 0) else None
    if (first, second) == (0, None):
        return "relu"
    if (first, second) == (0, 6):
        return "relu6"
    return "hardtanh" if names[0] == "min_val" else None


# In-place functions, with the function that does the same on a new tensor.
_PLAIN: dict[Any, Callable[..., Tensor]] = {
    torch.relu_: torch.relu,
    Tensor.relu_: torch.relu,
    F.leaky_relu_: F.leaky_relu,
    F.rrelu_: F.rrelu,
    F.elu_: F.elu,
    F.hardtanh_: F.hardtanh,
    torch.selu_: torch.selu,
    torch.celu_: torch.celu,
    torch.sigmoid_: torch.sigmoid,
    Tensor.sigmoid_: torch.sigmoid,
    torch.tanh_: torch.tanh,
    Tensor.tanh_: torch.tanh,
    torch.clamp_: torch.clamp,
    Tensor.clamp_: torch.clamp,
    torch.clip_: torch.clip,
    Tensor.clip_: torch.clip,
    torch.clamp_min_: torch.clamp_min,
    Tensor.clamp_min_: torch.clamp_min,
    torch.threshold_: F.threshold,
}
# Where the argument `inplace` stands, after the input; elsewhere it is known by its name.
_INPLACE_PLACE: dict[Any, int] = {
    F.relu: 0, F.relu6: 0, F.silu: 0, F.mish: 0, F.hardswish: 0, F.hardsigmoid: 0, F.selu: 0,
    F.leaky_relu: 1, F.elu: 1, F.celu: 1, F.hardtanh: 2, F.threshold: 2, F.rrelu: 3,
}  # fmt: skip


def _out_of_place(
    function: Any, rest: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], bool, Callable[..., Tensor]]:
    """The positional arguments without a wish for in-place work, whether there was one, and the plain function."""
    if function in _PLAIN:
        return rest, True, _PLAIN[function]
    in_place = bool(kwargs.pop("inplace", False))
    place = _INPLACE_PLACE.get(function)
    if place is not None and len(rest) > place:
        in_place = in_place or bool(rest[place])
        rest = (*rest[:place], False, *rest[place + 1 :])
    return rest, in_place, function

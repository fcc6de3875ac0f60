"""DeepLIFT with the rescale rule: differences from a baseline, passed back through every activation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.contracts import AttributionMethod, Batch, Cost, Setting
from pipeline.errors import FatalError
from pipeline.fill import Fill, filled
from pipeline.methods.gradient import explained
from pipeline.methods.piece import in_pieces
from pipeline.models.activation import Activation
from pipeline.models.classifier import Classifier
from pipeline.models.operation import Operation, refusing, replaced_operations, ruled
from pipeline.noise import Noise

# Values of these are 0, a bound or the input itself, so that float32 loses nothing in their differences.
_EXACT = ("relu", "relu6", "hardtanh", "clamp", "prelu")
# Share of f(x) − f(baseline) that may be missing before a model counts as not explained; rounding, by the logits.
_TOLERANCE = 0.01
_ROUNDING = 1e-5


class DeepLift(AttributionMethod):
    """Multipliers Δout/Δin of every activation, multiplied along the network, times the image minus the baseline.

    The sum over pixels is f(x) − f(baseline) (completeness); f is the logit, as the paper has it for a softmax
    output (Sec. 3.6).

    Source: Shrikumar et al. 2017, Eq. 3 (multipliers), Sec. 3.5.1 (linear rule) and 3.5.2 (rescale rule). Where
        Δin is zero the derivative is taken, which is the limit. What the paper leaves open: a max pooling credits its
        change to the unit that made it, the image's largest where the output rises and the baseline's largest where it
        falls; a product of two features (squeeze and excitation) divides Δ(ab) into Δa·(b + b₀)/2 and
        Δb·(a + a₀)/2. Both keep completeness.
    """

    name: Literal["deeplift"] = "deeplift"
    baseline: Fill = Field("black", description="what the image is compared with")

    def cost(self, setting: Setting) -> Cost:
        """At most two forwards and one backward: a baseline of one colour is run once for the whole batch."""
        return Cost(2, 1)

    def objection(self, model: Classifier, setting: Setting) -> str | None:
        """An operation without a rule, or a sum that misses the change of the output."""
        images = Noise(0).uniform("deeplift", ("probe",), (3, setting.height, setting.width)).to(model.device)
        with torch.no_grad():
            logits = model(images)
            change = (logits - model(filled(self.baseline, model, images)))[0]
        target = change.abs().argmax().view(1)
        try:
            with torch.enable_grad():
                maps = self(model, Batch(images, target, ("probe",)), Noise(0))
        except FatalError as error:
            return str(error)
        expected, found = float(change[target]), float(maps.double().sum())
        if abs(found - expected) <= _TOLERANCE * abs(expected) + _ROUNDING * float(logits.abs().max()):
            return None
        return (
            f"deeplift: the map of a test image sums to {found:.4g}, the output changes by {expected:.4g}; "
            "the network has an operation that is neither linear nor known here"
        )

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """Signed contributions, (B, 3, H, W)."""
        constant = self.baseline != "blur"
        trace = _Trace()
        pieces = []
        for images, targets in in_pieces(model, batch.images, batch.targets):
            start = filled(self.baseline, model, images)
            if not (constant and trace.found):
                trace = _baseline(model, start[:1] if constant else start, first_only=constant)
            pixels = images.detach().requires_grad_(True)
            with _compared(trace):
                logits = model(pixels)
            multiplier = torch.autograd.grad(explained(logits, targets, "logit").sum(), pixels)[0]
            pieces.append(multiplier * (images - start))
        return torch.cat(pieces)


class _Trace:
    """What goes into the activations, poolings and products of a forward, by the order of the calls."""

    def __init__(self) -> None:
        self.found: list[tuple[str, tuple[Tensor, ...]]] = []
        self._next = 0

    def rewind(self) -> None:
        """Start again at the first call."""
        self._next = 0

    def following(self, kind: str, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The baseline's inputs of the call that is made now."""
        kept_kind, kept = self.found[self._next] if self._next < len(self.found) else ("", ())
        shapes = [tensor.shape[1:] for tensor in inputs]
        if kept_kind != kind or shapes != [tensor.shape[1:] for tensor in kept]:
            raise FatalError(
                f"deeplift: the network calls '{kind}' on {shapes} where it called '{kept_kind or 'nothing'}' for the "
                "baseline; a forward that depends on the pixels' values cannot be compared"
            )
        self._next += 1
        return kept


def _baseline(model: Classifier, images: Tensor, first_only: bool) -> _Trace:
    """The trace of the baseline's forward; of its first image alone where all are the same."""
    trace = _Trace()

    def keep(kind: str, inputs: tuple[Tensor, ...]) -> None:
        # Copies, since the network may change the original later in its forward.
        trace.found.append((kind, tuple((x[:1] if first_only else x).detach().clone() for x in inputs)))

    def keep_activation(activation: Activation, features: Tensor) -> Tensor:
        keep(activation.kind, (features,))
        return activation.function(features)

    def keep_operation(operation: Operation) -> Tensor:
        keep(operation.kind, operation.inputs)
        return operation.function(*operation.inputs)

    # With a graph, though nothing is differentiated: it tells which products are of two features.
    rules = dict.fromkeys(("max_pool", "product", "clamp"), keep_operation)
    with replaced_operations(rules | {"unruled": refusing("deeplift")}, keep_activation):
        model(images.detach().clone().requires_grad_(True))
    return trace


@contextmanager
def _compared(trace: _Trace) -> Iterator[None]:
    """Inside the block the backward pass of a forward carries multipliers against the traced baseline."""
    trace.rewind()

    def activation_rule(activation: Activation, features: Tensor) -> Tensor:
        return _rescaled(activation.kind, activation.function, features, *trace.following(activation.kind, (features,)))

    def clamp_rule(operation: Operation) -> Tensor:
        (features,) = operation.inputs
        return _rescaled("clamp", operation.function, features, *trace.following("clamp", operation.inputs))

    def pooling_rule(operation: Operation) -> Tensor:
        return _pooled(operation, *trace.following("max_pool", operation.inputs))

    def product_rule(operation: Operation) -> Tensor:
        return _multiplied(operation, *trace.following("product", operation.inputs))

    rules = {
        "max_pool": pooling_rule,
        "product": product_rule,
        "clamp": clamp_rule,
        "unruled": refusing("deeplift"),
    }
    with replaced_operations(rules, activation_rule):
        yield


def _rescaled(kind: str, function: Callable[[Tensor], Tensor], features: Tensor, start: Tensor) -> Tensor:
    """An elementwise function whose backward pass multiplies by Δout/Δin."""
    here = features.detach()
    output = function(here)
    multiplier = _slope(kind, function, here, output, start)
    return ruled(output, lambda gradient, saved: (gradient * saved,), (features,), (multiplier,))


def _slope(kind: str, function: Callable[[Tensor], Tensor], here: Tensor, output: Tensor, start: Tensor) -> Tensor:
    """Multipliers Δout/Δin of an elementwise function.

    Args:
        kind, function: an activation, or `clamp`.
        here, output: input and output for the images, (N, …).
        start: input for the baseline, (N or 1, …).

    Returns:
        (N, …). Where Δin is zero: the derivative.
    """
    if kind not in _EXACT:
        # In double precision the difference of two float32 numbers, however near, keeps its leading digits.
        here, start = here.double(), start.double()
        output = function(here)
    change = here - start
    same = change == 0
    if kind == "relu":
        derivative = (here > 0).to(here)
    else:
        with torch.enable_grad():
            point = here.detach().requires_grad_(True)
            derivative = torch.autograd.grad(function(point).sum(), point)[0]
    if kind == "prelu":
        # Its parameters keep it in float32, where the difference of two near values is rounding.
        same = change.abs() <= 1e-4 * here.abs()
    secant = (output - function(start)) / change.masked_fill(same, 1.0)
    return torch.where(same, derivative, secant).float()


def _pooled(operation: Operation, start: Tensor) -> Tensor:
    """Max pooling whose change is credited to the unit that made it.

    With p the image's largest unit of a window and q the baseline's: where the output rises,
    Δin_p = x_p − x⁰_p ≥ x_p − x⁰_q = Δout; where it falls, Δin_q ≤ Δout < 0. So the multiplier
    Δout/Δin of that one unit is in [0, 1], and the window's contributions sum to Δout.
    """
    (features,) = operation.inputs
    here = features.detach()
    output, place = _largest(operation.function, here)
    before, place_before = _largest(operation.function, start)
    change = output - before
    unit = torch.where(change >= 0, place, place_before.expand_as(place)).flatten(2)
    moved = here.flatten(2).gather(2, unit) - start.flatten(2).expand(len(here), -1, -1).gather(2, unit)
    same = moved == 0
    multiplier = torch.where(same, 1.0, change.flatten(2) / moved.masked_fill(same, 1.0))
    shape = features.shape

    def backward(gradient: Tensor, unit: Tensor, multiplier: Tensor) -> tuple[Tensor]:
        spread = gradient.new_zeros(shape).flatten(2)
        spread.scatter_add_(2, unit, gradient.flatten(2) * multiplier)
        return (spread.view(shape),)

    return ruled(output, backward, (features,), (unit, multiplier))


def _largest(pool: Callable[..., Any], features: Tensor) -> tuple[Tensor, Tensor]:
    """Each window's largest value, and its place in the flattened map."""
    values, places = pool(features, return_indices=True)
    return values, places


def _multiplied(operation: Operation, start: Tensor, other_start: Tensor) -> Tensor:
    """A product of two features: ab − a₀b₀ = (a − a₀)(b + b₀)/2 + (b − b₀)(a + a₀)/2."""
    one, other = operation.inputs
    output = operation.function(one.detach(), other.detach())
    shapes = one.shape, other.shape

    def backward(gradient: Tensor, for_one: Tensor, for_other: Tensor) -> tuple[Tensor, Tensor]:
        return (gradient * for_one).sum_to_size(shapes[0]), (gradient * for_other).sum_to_size(shapes[1])

    means = (other.detach() + other_start) / 2, (one.detach() + start) / 2
    return ruled(output, backward, (one, other), means)

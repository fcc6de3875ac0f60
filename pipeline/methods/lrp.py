"""Layer-wise relevance propagation: the ε rule, and composites of rules for convolutional networks."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.contracts import AttributionMethod, Batch, Cost, Setting
from pipeline.errors import FatalError
from pipeline.fill import filled
from pipeline.methods.gradient import explained
from pipeline.methods.lrp_convolution import Convolution, box, gamma, positive, stabilised
from pipeline.methods.piece import in_pieces
from pipeline.models.activation import Activation, unruled
from pipeline.models.classifier import Classifier
from pipeline.models.operation import Operation, refusing, replaced_operations, ruled
from pipeline.models.operation import Rule as OperationRule
from pipeline.noise import Noise

Composite = Literal["epsilon", "epsilon_plus", "epsilon_gamma_box"]

# Activations that leave zero at zero: relevance passes them unchanged.
_PASSED = (
    "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish",
    "softsign", "tanh", "hardtanh",
)  # fmt: skip
# Activations that make gates, which weigh features and have no relevance of their own.
_GATES = ("sigmoid", "hardsigmoid")


class LRPEpsilon(AttributionMethod):
    """Relevance of the class's logit, passed back in proportion to what each input added to each output.

    Every linear operation divides R_j among its inputs as a_i·w_ij / (z_j + ε·sign z_j); its bias keeps its share.
    Elementwise activations pass relevance unchanged, max pooling hands it to the winner, sums and average poolings
    divide it by the same rule, gates (sigmoids that scale features) count as constants. With ReLUs and ε → 0 the map
    is gradient × input.

    Batch norm behind a convolution is folded into it. Elsewhere (DenseNet) it is a linear operation of its own under
    the ε rule.

    Composites choose other rules for convolutions: `epsilon_plus` the z⁺ rule; `epsilon_gamma_box` the γ rule, and
    the z^B rule of pixels between 0 and 1 for the first one. Operations are told by what they do, as in Zennit: a
    1 × 1 convolution at the end is a convolution.

    Source: Bach et al. 2015, Eq. 58 (ε) and 60 (z⁺: α = 1, β = 0); Montavon et al. 2017 (z^B); Montavon et al. 2019
        (γ, composites); Arras et al. 2017 (gates). ε = 1e-6 is Zennit's. Relevance is at the pixels in pixel scale
        [0, 1]: the normalisation is part of the first linear operation. Published code takes the normalised image as
        the input instead, which is `zero: mean`; the z^B rule does not depend on it.
    """

    name: Literal["lrp_epsilon"] = "lrp_epsilon"
    epsilon: float = Field(1e-6, gt=0, description="ε, added to every denominator with its sign")
    composite: Composite = Field("epsilon", description="rules of the convolutions")
    gamma: float = Field(0.25, ge=0, description="γ of `epsilon_gamma_box`")
    zero: Literal["black", "mean"] = Field("black", description="the pixel value that has no relevance")

    def cost(self, setting: Setting) -> Cost:
        """One forward, one backward; a convolution under a rule of the composites counts about four times."""
        return Cost(1, 1)

    def objection(self, model: Classifier, setting: Setting) -> str | None:
        """An activation or operation without a rule."""
        objection = unruled("lrp_epsilon", model, setting.height, setting.width, (*_PASSED, *_GATES))
        if objection is not None:
            return objection
        image = Noise(0).uniform("lrp_epsilon", ("probe",), (3, setting.height, setting.width)).to(model.device)
        try:
            with torch.enable_grad():
                maps = self(model, Batch(image, torch.zeros(1, dtype=torch.long, device=model.device), ("",)), Noise(0))
        except FatalError as error:
            return str(error)
        return None if maps.isfinite().all() else "lrp_epsilon: relevance of a test image is not finite"

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """Signed relevance, (B, 3, H, W)."""
        pieces = []
        for images, targets in in_pieces(model, batch.images, batch.targets):
            zero = filled(self.zero, model, images)
            pixels = images.detach().requires_grad_(True)
            rules = _Rules(self, model, pixels, zero)
            with replaced_operations(rules.operations(), rules.activation):
                logits = model(pixels)
            rules.finish()
            share = torch.autograd.grad(explained(logits, targets, "logit").sum(), pixels)[0]
            pieces.append(share if self.composite == "epsilon_gamma_box" else share * (images - zero))
        return torch.cat(pieces)


@dataclass(frozen=True, slots=True)
class _ConvolutionRule:
    """A convolution under a rule of a composite: its map, its input, and whether it is at the image."""

    convolution: Convolution
    features: Tensor
    first: bool


@dataclass(frozen=True, slots=True)
class _Foldable:
    """An output, the same before its rule, and the convolution's rule (None: the ε rule)."""

    result: weakref.ref[Tensor]
    output: Tensor
    rule: _ConvolutionRule | None


class _Rules:
    """The rules of one forward.

    What travels backwards is c = R/a, relevance over activation, in place of the relevance R: then no rule divides by
    an activation near zero, and operations without a rule here (reshaping, concatenation, padding, max pooling) are
    right as they are.
    """

    def __init__(self, method: LRPEpsilon, model: Classifier, pixels: Tensor, zero: Tensor) -> None:
        self._method = method
        self._model = model
        self._pixels = pixels.detach()
        self._zero = zero
        self._convolutions = 0
        # What a batch norm can fold into, by the identity of an output and as long as somebody holds it.
        self._foldable: dict[int, _Foldable] = {}

    def operations(self) -> dict[str, OperationRule]:
        """The rule of each kind of operation."""
        refuse = refusing("lrp_epsilon")
        return {
            "convolution": self._convolution,
            "weighted": self._weighted,
            "batch_norm": self._batch_norm,
            "average": self._proportional,
            "sum": self._proportional,
            "product": refuse,
            "clamp": refuse,
            "unruled": refuse,
        }

    def activation(self, activation: Activation, features: Tensor) -> Tensor:
        """Relevance unchanged: c is multiplied by output over input. A gate is a constant."""
        if activation.kind == "relu":
            return activation.function(features)
        here = features.detach()
        output = activation.function(here)
        if activation.kind in _GATES:
            return output
        ratio = torch.where(here == 0, 0.0, output / here.masked_fill(here == 0, 1.0))
        return ruled(output, lambda gradient, saved: (gradient * saved,), (features,), (ratio,))

    def finish(self) -> None:
        """Called after the forward: a composite needs the first convolution at the image."""
        self._foldable.clear()
        if self._method.composite == "epsilon_gamma_box" and not self._convolutions:
            raise FatalError("lrp_epsilon: composite epsilon_gamma_box needs a convolution at the image; found none")

    def _proportional(self, operation: Operation) -> Tensor:
        """The ε rule: the plain gradient passes c, which is then damped by z/(z + ε·sign z)."""
        return self._damped(operation.function(*operation.inputs))

    def _damped(self, output: Tensor) -> Tensor:
        epsilon = self._method.epsilon
        values = output.detach()
        return ruled(values, lambda c, z: (c * z / stabilised(z, epsilon),), (output,), (output.detach(),))

    def _weighted(self, operation: Operation) -> Tensor:
        if not operation.inputs:
            raise FatalError(
                f"lrp_epsilon: '{operation.name}' gets features that do not depend on the image, or only through a "
                "sigmoid; its rule takes sigmoids as gates that scale features"
            )
        output = operation.function(*operation.inputs)
        result = self._damped(output)
        self._foldable[id(result)] = _Foldable(weakref.ref(result), output, None)
        return result

    def _convolution(self, operation: Operation) -> Tensor:
        if self._method.composite == "epsilon" or not operation.inputs:
            return self._weighted(operation)
        (features,) = operation.inputs
        first = self._convolutions == 0
        self._convolutions += 1
        if first:
            self._check_image(features)
        rule = _ConvolutionRule(Convolution.of(operation), features, first)
        output = operation.function(features.detach())
        result = self._by(rule, output.detach())
        self._foldable[id(result)] = _Foldable(weakref.ref(result), output, rule)
        return result

    def _batch_norm(self, operation: Operation) -> Tensor:
        if operation.arguments.get("training") or operation.arguments.get("running_mean") is None:
            raise FatalError("lrp_epsilon: a batch norm uses the statistics of its batch; no rule for that")
        (features,) = operation.inputs
        kept = self._foldable.get(id(features))
        if kept is None or kept.result() is not features:
            return self._proportional(operation)
        if kept.rule is None:
            return self._damped(operation.function(kept.output))
        rule = replace(kept.rule, convolution=kept.rule.convolution.folded(operation))
        return self._by(rule, operation.function(kept.output))

    def _by(self, call: _ConvolutionRule, output: Tensor) -> Tensor:
        """An output whose relevance goes back by the composite's rule for this convolution."""
        conv, first, features = call.convolution, call.first, call.features.detach()
        mean, std, zero = self._model.mean, self._model.std, self._zero[:1]
        method = self._method
        rule = positive(method.epsilon)
        if method.composite == "epsilon_gamma_box":
            low, high = -mean / std, (1 - mean) / std
            rule = box(low, high, method.epsilon) if first else gamma(method.gamma, method.epsilon)

        def backward(c: Tensor, features: Tensor, output: Tensor) -> tuple[Tensor]:
            if not first:
                return (rule(conv, c, features, output, None),)
            if method.composite == "epsilon_gamma_box":
                # The normalisation will divide by std; the relevance itself is to arrive at the pixels.
                return (rule(conv, c, features, output, None) * std,)
            # The normalisation is part of this operation: a pixel of value `zero` is zero, the bias takes the rest.
            features = features - (zero - mean) / std
            return (rule(conv, c, features, output, output - conv.forward(features, conv.weight)),)

        return ruled(output, backward, (call.features,), (features, output.detach()))

    def _check_image(self, features: Tensor) -> None:
        expected = (self._pixels - self._model.mean) / self._model.std
        if features.shape[1:] != expected.shape[1:] or not torch.equal(features.detach()[: len(expected)], expected):
            raise FatalError(
                f"lrp_epsilon: composite {self._method.composite} needs the first convolution at the normalised image; "
                "this network changes the image before it (composite epsilon needs no such thing)"
            )

"""Learnable rules that stand in for the derivatives of activations in the backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from pipeline.contracts import Config
from pipeline.models.activation import Activation, replaced_activations
from pipeline.models.classifier import Classifier


class Plugin(Config):
    """What stands in for the derivative of an activation.

    With g the gradient of the activation's output, f its input, f_ref the reference's and W the weights, the
    gradient of its input is g ∘ tanh(W ∘ (f − f_ref)) for `gate`, and tanh(W ∘ g) for `gradient`.

    Attributes:
        reading: `gate` or `gradient`.
        architecture: weights of the features' shape (`position`), or one a channel (`channel`).
        initial: every weight at first, or `derivative`: that of the activation itself.
        placement: `every` activation, or those of feature maps (N, C, H, W) alone (`maps`).

    Source: Yang et al. 2020, Eq. 2 and Sec. 4.2.
    """

    reading: Literal["gate", "gradient"]
    architecture: Literal["position", "channel"]
    initial: float | Literal["derivative"]
    placement: Literal["every", "maps"]

    def backward(self, weights: Tensor, difference: Tensor | None, gradient: Tensor) -> Tensor:
        """The gradient of the activation's input, (N, …).

        Args:
            weights: (N, …), or (N, C, 1, 1) for one a channel.
            difference: f − f_ref, (N, …); `gradient` does not look at it.
            gradient: g, (N, …).
        """
        if difference is None:
            return torch.tanh(weights * gradient)
        return gradient * torch.tanh(weights * difference)

    def first_weights(self, activation: Activation, features: Tensor) -> Tensor:
        """The weights before learning, in the memory layout of the features (N, …)."""
        if self.initial == "derivative":
            with torch.enable_grad():
                leaf = features.detach().requires_grad_(True)
                weights = torch.autograd.grad(activation.function(leaf).sum(), leaf)[0]
        else:
            weights = torch.full_like(features, self.initial)
        if self.architecture == "channel" and features.dim() > 2:
            # Channels are the second axis of a map (N, C, H, W), and the last one of tokens (N, tokens, C).
            weights = weights.mean((2, 3) if features.dim() == 4 else 1, keepdim=True)
        return weights


class LearnedRules:
    """A rule for `replaced_activations`: forward as ever, backward through learnable weights.

    The weights are read when a backward comes by, not when the forward runs. So one forward serves for as many
    backwards as there are updates, and no weight is an input of the forward's graph, which would make a backward
    through a backward far longer. With `create_graph` a backward can be differentiated with respect to the weights,
    and again.

    Attributes:
        weights: leaves, by the index of the activation's call.
    """

    def __init__(self, plugin: Plugin, references: list[Tensor] | None) -> None:
        """The rules of one forward.

        Args:
            plugin: which rule.
            references: what each activation is given at the reference (`activation_inputs`); None for zero.
        """
        self.weights: dict[int, Tensor] = {}
        self._plugin = plugin
        self._references = references
        self._differences: dict[int, Tensor] = {}

    def __call__(self, activation: Activation, features: Tensor) -> Tensor:
        """The activation's output (N, …)."""
        if self._plugin.placement == "maps" and features.dim() != 4:
            return activation.function(features)
        index, given = activation.index, features.detach()
        self.weights[index] = self._plugin.first_weights(activation, given).requires_grad_(True)
        if self._plugin.reading == "gate":
            self._differences[index] = given if self._references is None else given - self._references[index]
        output: Tensor = _Propagated.apply(features, activation, self)
        return output

    def backward(self, index: int, gradient: Tensor) -> Tensor:
        """The gradient of an activation's input from that of its output, both (N, …)."""
        return self._plugin.backward(self.weights[index], self._differences.get(index), gradient)


class _Propagated(torch.autograd.Function):
    """An activation with a learnable rule in the place of its derivative."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, activation: Activation, rules: LearnedRules) -> Tensor:
        ctx.index, ctx.rules = activation.index, rules
        return activation.function(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.rules.backward(ctx.index, gradient), None, None


class Adam:
    """Adam over several tensors, element by element: samples that lie side by side in a tensor do not meet.

    PyTorch's own takes seconds to come to its first step, since that step loads a compiler.

    Source: Kingma and Ba 2015, Algorithm 1, with its defaults for all but the learning rate.
    """

    def __init__(self, weights: list[Tensor], learning_rate: float) -> None:
        self._weights = weights
        self._rate = learning_rate
        self._moments = [(torch.zeros_like(weight), torch.zeros_like(weight)) for weight in weights]
        self._steps = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """Change the weights in place and overwrite the gradients; None, where nothing depends on one, is skipped."""
        self._steps += 1
        correction = (1 - 0.999**self._steps) ** 0.5
        rate = self._rate / (1 - 0.9**self._steps) * correction
        for weight, (first, second), gradient in zip(self._weights, self._moments, gradients, strict=True):
            if gradient is not None:
                first.lerp_(gradient, 0.1)
                second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
                spread = torch.sqrt(second, out=gradient).add_(1e-8 * correction)
                weight.addcdiv_(first, spread, value=-rate)


def activation_inputs(model: Classifier, image: Tensor) -> list[Tensor]:
    """What every activation is given when the model sees one image, in the order of the calls.

    Args:
        model: left untouched.
        image: (1, 3, H, W).

    Returns:
        One tensor (1, …) a call.
    """
    seen: list[Tensor] = []

    def note(activation: Activation, features: Tensor) -> Tensor:
        seen.append(features[:1].clone())
        return activation.function(features)

    with torch.no_grad(), replaced_activations(note):
        model(image)
    return seen

"""Rules of layer-wise relevance propagation for convolutions: z⁺, γ and z^B, with a batch norm folded in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input

from pipeline.errors import FatalError
from pipeline.models.operation import Operation


def stabilised(denominator: Tensor, epsilon: float) -> Tensor:
    """A denominator moved away from zero by epsilon; zero itself becomes +epsilon."""
    return denominator + torch.where(denominator < 0, -epsilon, epsilon)


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution as a linear map z = W·a + b.

    Attributes:
        weight: (C, D/groups, h, w).
        bias: (C,) or None.
        stride, dilation, groups: as in `torch.nn.functional.conv2d`.
        padding: (2,) numbers.
    """

    weight: Tensor
    bias: Tensor | None
    stride: Any
    padding: tuple[int, int]
    dilation: Any
    groups: int

    @classmethod
    def of(cls, operation: Operation) -> Convolution:
        """The convolution that a forward called."""
        given = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1} | dict(operation.arguments)
        weight = given["weight"]
        padding = _padding(given["padding"], weight.shape[-2:], given["dilation"])
        return cls(weight, given["bias"], given["stride"], padding, given["dilation"], given["groups"])

    def folded(self, normalisation: Operation) -> Convolution:
        """This convolution and the batch norm behind it, as one."""
        given = {"weight": None, "bias": None, "eps": 1e-5} | dict(normalisation.arguments)
        scale = (given["running_var"] + given["eps"]).rsqrt()
        scale = scale if given["weight"] is None else scale * given["weight"]
        bias = -given["running_mean"] if self.bias is None else self.bias - given["running_mean"]
        bias = bias * scale if given["bias"] is None else bias * scale + given["bias"]
        return replace(self, weight=self.weight * scale.view(-1, 1, 1, 1), bias=bias)

    def forward(self, features: Tensor, weight: Tensor) -> Tensor:
        """W·a with other weights and no bias: (N, D, H, W) → (N, C, …)."""
        return F.conv2d(features, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def backward(self, shape: torch.Size, weight: Tensor, share: Tensor) -> Tensor:
        """Wᵀ·s with other weights: (N, C, …) → shape (N, D, H, W)."""
        shared = (share, self.stride, self.padding, self.dilation, self.groups)
        result: Tensor = conv2d_input(list(shape), weight, *shared)  # type: ignore[no-untyped-call]
        return result

    def gains(self, features: Tensor, rest: Tensor | None) -> Tensor:
        """What raises each output: a⁺·w⁺ + a⁻·w⁻ + b⁺; `rest` stands for the bias where there is one."""
        total = self.forward(features.clamp(min=0), self.weight.clamp(min=0))
        if bool((features < 0).any()):
            total = total + self.forward(features.clamp(max=0), self.weight.clamp(max=0))
        if rest is not None:
            return total + rest.clamp(min=0)
        return total if self.bias is None else total + self.bias.clamp(min=0).view(1, -1, 1, 1)

    def spread(self, features: Tensor, raising: Tensor | None, lowering: Tensor | None) -> Tensor:
        """Shares handed back along the contributions of one sign, over the activations.

        Args:
            features: a, (N, D, H, W).
            raising: (N, C, …) shares that go along a_i·w_ij > 0, or None.
            lowering: (N, C, …) shares that go along a_i·w_ij < 0, or None.

        Returns:
            (N, D, H, W): with positive a along w⁺ for raising and w⁻ for lowering, with negative a the reverse.
        """
        up, down, shape = self.weight.clamp(min=0), self.weight.clamp(max=0), features.shape
        flows = [(raising, up, down), (lowering, down, up)]
        given = [(share, same, other) for share, same, other in flows if share is not None]
        result = sum((self.backward(shape, same, share) for share, same, _ in given), torch.zeros_like(features))
        negative = features < 0
        if bool(negative.any()):
            reverse = sum((self.backward(shape, other, share) for share, _, other in given), torch.zeros_like(features))
            result = torch.where(negative, reverse, result)
        return result


Rule = Callable[[Convolution, Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""The convolution, relevance over output c (N, C, …), features a (N, D, H, W), output z (N, C, …) and what stands for
the bias (or None) in; relevance over features (N, D, H, W) out."""


def positive(epsilon: float) -> Rule:
    """The z⁺ rule: relevance goes back along what raised the output.

    Source: Bach et al. 2015, Eq. 60 with α = 1, β = 0. Features below zero take part with negative weights.
    """

    def rule(conv: Convolution, gradient: Tensor, features: Tensor, output: Tensor, rest: Tensor | None) -> Tensor:
        share = gradient * output / stabilised(conv.gains(features, rest), epsilon)
        return conv.spread(features, share, None)

    return rule


def gamma(factor: float, epsilon: float) -> Rule:
    """The γ rule: what has the sign of the output counts 1 + γ times.

    Source: Montavon et al. 2019, Sec. 10.2.1, for outputs and features of either sign as in Andéol et al. 2021.
    """

    def rule(conv: Convolution, gradient: Tensor, features: Tensor, output: Tensor, rest: Tensor | None) -> Tensor:
        gains = conv.gains(features, rest)
        favoured = torch.where(output > 0, gains, output - gains)
        share = gradient * output / stabilised(output + factor * favoured, epsilon)
        lowering = share.masked_fill(output > 0, 0.0)
        # Behind a ReLU no output below zero has relevance.
        kept = lowering if bool(lowering.any()) else None
        boosted = conv.spread(features, share.masked_fill(output <= 0, 0.0), kept)
        return conv.backward(features.shape, conv.weight, share) + factor * boosted

    return rule


def box(low: Tensor, high: Tensor, epsilon: float) -> Rule:
    """The z^B rule for features between bounds; it returns the relevance itself, not over the features.

    Args:
        low, high: (1, D, 1, 1).
        epsilon: of the denominator.

    Source: Montavon et al. 2017, Eq. 15.
    """

    def rule(conv: Convolution, gradient: Tensor, features: Tensor, output: Tensor, rest: Tensor | None) -> Tensor:
        up, down = conv.weight.clamp(min=0), conv.weight.clamp(max=0)
        lowest, highest = low.expand_as(features[:1]), high.expand_as(features[:1])
        total = conv.forward(features, conv.weight) - conv.forward(lowest, up) - conv.forward(highest, down)
        share = gradient * output / stabilised(total, epsilon)
        shape = features.shape
        along = features * conv.backward(shape, conv.weight, share)
        return along - low * conv.backward(shape, up, share) - high * conv.backward(shape, down, share)

    return rule


def _padding(padding: Any, kernel: torch.Size, dilation: Any) -> tuple[int, int]:
    if isinstance(padding, int):
        return padding, padding
    if not isinstance(padding, str):
        return (int(padding[0]), int(padding[-1]))
    if padding == "valid":
        return 0, 0
    steps = (dilation, dilation) if isinstance(dilation, int) else tuple(dilation)
    total = [step * (size - 1) for step, size in zip(steps, kernel, strict=True)]
    if any(count % 2 for count in total):
        raise FatalError(f"lrp_epsilon: padding 'same' of an even kernel {tuple(kernel)} has no rule in the composites")
    return total[0] // 2, total[1] // 2

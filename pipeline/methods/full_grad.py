"""FullGrad: the gradients of the input and of every bias, which together are the output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pipeline.contracts import AttributionMethod, Batch, Cost, ExplainedOutput, Setting
from pipeline.errors import FatalError
from pipeline.methods.enlarge import enlarged
from pipeline.methods.gradient import explained
from pipeline.methods.piece import in_pieces
from pipeline.models.activation import Activation, replaced_activations
from pipeline.models.check import undifferentiable
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise

# Without an implicit bias: the output is the derivative times the input.
HOMOGENEOUS = {"relu", "leaky_relu", "prelu", "rrelu"}
# How far the parts may be from the output, as a share of their magnitudes: far above rounding, and far below what an
# operation without a bias of its own (layer normalisation, a product of features) leaves out.
TOLERANCE = 1e-3

Take = Callable[[Tensor], None]
"""Is given the parts of one bias: its gradient times its value, (N, …) or (N, C, h, w)."""


class FullGrad(AttributionMethod):
    """Input gradient times input, and bias gradient times bias of every layer, each rescaled, enlarged and added.

    Before the rescaling the parts sum to the output exactly (completeness). Biases are those of convolutions and
    linear layers, what batch normalisation adds, and the implicit bias η(z) − η'(z)·z of an activation that is not
    ReLU-like (ReLU6 and others). The normalisation of the pixels is such a layer too.

    Source: Srinivas and Fleuret 2019, Eq. 2 (the parts), Sec. 3 (implicit biases) and Eq. 7 (the map), with
        ψ = bilinear enlargement of the rescaled magnitude. As in the published code: the maps of one layer are rescaled
        together (`rescale: layer`; `channel` is the equation as printed, each channel for itself), corners are
        aligned in the enlargement, and biases without a place (linear layers) are left out of the map. The published
        code calls the normalised image the input (`input: normalised`); here it is the pixels, and −mean/std a bias.
    """

    name: Literal["full_grad"] = "full_grad"
    rescale: Literal["layer", "channel"] = Field("layer", description="what is scaled to [0, 1] together")
    input: Literal["pixel", "normalised"] = Field("pixel", description="what the input gradient is multiplied by")
    output: ExplainedOutput = Field("logit", description="what is explained; only a logit is the sum of the parts")

    def cost(self, setting: Setting) -> Cost:
        """One forward, one backward."""
        return Cost(1, 1)

    def objection(self, model: Classifier, setting: Setting) -> str | None:
        """A model whose output is not the sum of the parts, tried on one image."""
        image = Noise().uniform("full_grad", ["probe"], (3, setting.height, setting.width)).to(model.device)
        target = torch.zeros(1, dtype=torch.long, device=model.device)
        totals: list[Tensor] = []
        try:
            gradient = full_gradient(model, image, target, "logit", lambda part: totals.append(part.sum()))
        except FatalError as error:
            return str(error)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            return f"full_grad: the network cannot be differentiated: {undifferentiable(error)}"
        totals += [(gradient * (image - model.mean)).sum()]
        found = torch.stack(totals)
        with torch.no_grad():
            expected = model(image)[0, 0]
        if (found.sum() - expected).abs() <= TOLERANCE * found.abs().sum():
            return None
        return (
            f"full_grad: the parts sum to {found.sum().item():.4g}, the output is {expected.item():.4g}: the network "
            "has operations that are not linear between its biases, such as a product of features"
        )

    def __call__(self, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        """(B, 1, H, W), zero or more."""
        height, width = batch.images.shape[-2:]
        pieces = []
        for images, targets in in_pieces(model, batch.images, batch.targets):
            total = images.new_zeros(len(images), 1, height, width)

            def add(part: Tensor, total: Tensor = total) -> None:
                if part.dim() == 4:
                    # Enlarging is linear: the channels are added first.
                    total += enlarged(self._rescaled(part).sum(1, keepdim=True), height, width, align_corners=True)

            gradient = full_gradient(model, images, targets, self.output, add)
            if self.input == "normalised":
                add(gradient * (images - model.mean))
            else:
                add(gradient * images)
                add(-gradient * model.mean)
            pieces.append(total)
        return torch.cat(pieces)

    def _rescaled(self, part: Tensor) -> Tensor:
        """Magnitudes (N, C, h, w) scaled to [0, 1]; zero where all are equal."""
        axes = (1, 2, 3) if self.rescale == "layer" else (2, 3)
        size = part.abs()
        low, high = size.amin(axes, keepdim=True), size.amax(axes, keepdim=True)
        return (size - low) / torch.where(high > low, high - low, 1)


def full_gradient(model: Classifier, images: Tensor, targets: Tensor, output: ExplainedOutput, take: Take) -> Tensor:
    """Gradient of the pixels, while the parts of the biases are handed over one by one.

    Σ gradient ∘ (images − mean) plus all parts is the logit.

    Args:
        model: left untouched.
        images: (N, 3, H, W) float32, at most `model.rows`.
        targets: (N,) int64.
        output: which output of the target class.
        take: called during the backward pass for every bias inside the network, once for each time it is used.

    Returns:
        (N, 3, H, W) float32, detached.

    Raises:
        FatalError: the network normalises by its features or attends.
    """

    def watch(result: Tensor, bias: Tensor) -> None:
        # A lone image travels with a copy of itself; see `Classifier.forward`. A hook on the tensor, and not a second
        # tensor, since the next operation may work in place.
        result.register_hook(  # type: ignore[no-untyped-call]
            lambda gradient: take((gradient * bias)[: len(images)])
        )

    def implicit(activation: Activation, features: Tensor) -> Tensor:
        result = activation.function(features)
        if activation.kind not in HOMOGENEOUS and result.requires_grad:
            place = features.detach().requires_grad_(True)
            value = activation.function(place)
            slope = torch.autograd.grad(value.sum(), place)[0]
            watch(result, value.detach() - slope * place.detach())
        return result

    pixels = images.detach().requires_grad_(True)
    with torch.enable_grad():
        with replaced_activations(implicit), _Biases(watch):
            logits = model(pixels)
        score = explained(logits, targets, output).sum()
    return torch.autograd.grad(score, pixels)[0]


class _Biases(TorchFunctionMode):
    """Watches the result of every operation that adds a bias."""

    def __init__(self, watch: Callable[[Tensor, Tensor], None]) -> None:
        super().__init__()
        self._watch = watch

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _CURVED:
            raise FatalError(
                f"full_grad: the network uses {function.__name__}, which is not linear and has no bias to explain it "
                "by; the method is for convolutional networks without it"
            )
        result = function(*args, **kwargs)
        names = _ARGUMENTS.get(function)
        if names is not None and result.requires_grad:
            given = dict(zip(names, args, strict=False)) | kwargs
            bias = _normalising_bias(**given) if function is F.batch_norm else given.get("bias")
            if bias is not None:
                # A linear layer has its channels last.
                self._watch(result, bias if function is F.linear else bias.view(-1, *[1] * (result.dim() - 2)))
        return result


_WEIGHTED = ("input", "weight", "bias")
_ARGUMENTS: dict[Any, tuple[str, ...]] = {
    **dict.fromkeys((F.linear, F.conv1d, F.conv2d, F.conv3d), _WEIGHTED),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), _WEIGHTED),
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
}

# Seen at once, also where untrained weights make every part zero.
_CURVED = {
    F.layer_norm, F.group_norm, F.instance_norm, F.local_response_norm, F.normalize, F.softmax, torch.softmax,
    F.scaled_dot_product_attention, F.multi_head_attention_forward,
}  # fmt: skip


def _normalising_bias(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """What batch normalisation adds to its scaled input, (C,): β − γ·μ/√(σ² + ε)."""
    if training or running_mean is None or running_var is None:
        raise FatalError("full_grad: batch normalisation by the batch's own statistics is not affine")
    scale = (running_var + eps).rsqrt()
    scale = scale if weight is None else weight * scale
    return -running_mean * scale if bias is None else bias - running_mean * scale

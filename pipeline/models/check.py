"""Whether a model takes the data set's images and returns logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.errors import FatalError
from pipeline.noise import Noise


def check_classifier(model: nn.Module, height: int, width: int, classes: int) -> None:
    """Runs three images through a model and refuses what methods and metrics could not work with.

    Args:
        model: takes (N, 3, H, W) in [0, 1]; its mode is left as it is.
        height, width: of the data set's images, in pixels.
        classes: number of logits expected.

    Raises:
        FatalError: the images do not fit, or the output is no tensor (N, classes), is not finite, is already a
            probability, or has no gradient with respect to the images.
    """
    images = torch.stack(
        [
            torch.zeros(3, height, width),
            torch.ones(3, height, width),
            Noise().uniform("check_classifier", ["noise"], (3, height, width))[0],
        ]
    )
    output = forward_once(model, images)
    if not isinstance(output, Tensor):
        raise FatalError(f"the model returns {type(output).__name__}, expected a tensor of logits (N, {classes})")
    if output.shape != (len(images), classes):
        mend = f"; set the model's `classes: {output.shape[1]}`" if output.dim() == 2 else ""
        raise FatalError(f"the model returns {tuple(output.shape)} for 3 images, expected logits (3, {classes}){mend}")
    if not output.isfinite().all():
        raise FatalError(f"the model returns NaN or infinite logits on plain {height}x{width} images")
    if classes > 1 and (output >= 0).all() and torch.allclose(output.sum(1), output.new_ones(3), atol=1e-3):
        raise FatalError("the model returns probabilities, expected logits: leave the last softmax out")
    _check_gradient(model, images[1:])


def _check_gradient(model: nn.Module, images: Tensor) -> None:
    """Takes one gradient with respect to the images.

    Raises:
        FatalError: autograd refuses.
    """
    like = next((tensor for tensor in model.parameters() if tensor.is_floating_point()), images)
    pixels = images.to(like).requires_grad_(True)
    try:
        with torch.enable_grad():
            # A copy: a network may change its input in place, which a leaf of the graph forbids.
            output = model(pixels.clone())
            torch.autograd.grad(output.sum(), pixels)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the network may be the user's own code, which may raise anything
        raise FatalError(f"the model has no gradient with respect to its images: {undifferentiable(error)}") from error


def undifferentiable(error: Exception) -> str:
    """Why autograd refused a network, in one line with the mend."""
    reason = str(error).strip().split("\n", 1)[0].split("; expected version", 1)[0] or type(error).__name__
    if "inplace" in reason or "in-place" in reason:
        return f"{reason}; write `y = y + x` in its forward in place of `y += x`"
    if "does not require grad" in reason or "not have been used" in reason:
        return f"{reason}; leave `torch.no_grad()`, `detach()` and rounding out of its forward"
    return reason


@torch.no_grad()
def forward_once(model: nn.Module, images: Tensor) -> object:
    """The model's output on these images, cast to its device and precision.

    Raises:
        FatalError: the model does not take images of this size.
    """
    like = next((tensor for tensor in model.parameters() if tensor.is_floating_point()), images)
    try:
        output: object = model(images.to(like))
        return output
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the network may be the user's own code, which may raise anything
        size = f"{images.shape[-2]}x{images.shape[-1]}"
        reason = str(error).strip().split("\n", 1)[0] or type(error).__name__
        raise FatalError(f"the model cannot take images of {size}: {reason}") from error

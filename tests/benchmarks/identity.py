"""A model that costs next to nothing: what is left is the pipeline's own work."""

from __future__ import annotations

from torch import Tensor, nn


class Identity(nn.Module):
    """The colour of one pixel as three logits."""

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, 3)."""
        return images[:, :, 0, 0]


def build() -> nn.Module:
    """The model, for `module:function`."""
    return Identity()

"""How alike two maps are: rank correlation and structural similarity, batched over pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor

from pipeline.metrics.rank_correlation import centred_ranks, rank_correlation
from pipeline.metrics.structural_similarity import WINDOW, structural_similarity

Similarity = Literal["spearman", "abs_spearman", "ssim"]
SIMILARITIES: tuple[Similarity, ...] = get_args(Similarity)


class Comparison:
    """Maps that others are compared with, again and again: their ranks are found once.

    Attributes:
        kinds: the similarities asked for.
    """

    def __init__(self, maps: Tensor, kinds: Sequence[Similarity] = SIMILARITIES) -> None:
        """Prepares the maps.

        Args:
            maps: (B, 1, H, W) float32; for `ssim` at least 7 × 7.
            kinds: which similarities are going to be asked for.

        Raises:
            ValueError: maps of another shape, or too small for `ssim`.
        """
        if maps.dim() != 4 or maps.shape[1] != 1:
            raise ValueError(f"expected maps (B, 1, H, W), got {tuple(maps.shape)}")
        if "ssim" in kinds and min(maps.shape[2:]) < WINDOW:
            raise ValueError(f"ssim needs maps of at least {WINDOW} × {WINDOW} pixels, got {tuple(maps.shape[2:])}")
        self.kinds = tuple(kinds)
        self._maps = maps.detach()
        self._ranks = centred_ranks(maps.flatten(1)) if "spearman" in kinds else None
        self._abs_ranks = centred_ranks(maps.flatten(1).abs()) if "abs_spearman" in kinds else None

    def compare(self, others: Tensor) -> dict[Similarity, Tensor]:
        """Each similarity of the maps with as many others, pair by pair.

        Args:
            others: (B, 1, H, W), as the maps.

        Returns:
            By name, (B,) float32; as `spearman`, `abs_spearman` and `ssim` give.

        Raises:
            ValueError: the others have another shape.
        """
        if others.shape != self._maps.shape:
            raise ValueError(f"expected maps {tuple(self._maps.shape)}, got {tuple(others.shape)}")
        found: dict[Similarity, Tensor] = {}
        for kind in self.kinds:
            if kind == "spearman" and self._ranks is not None:
                found[kind] = rank_correlation(self._ranks, others.flatten(1))
            elif kind == "abs_spearman" and self._abs_ranks is not None:
                found[kind] = rank_correlation(self._abs_ranks, others.flatten(1).abs())
            elif kind == "ssim":
                found[kind] = structural_similarity(self._maps, others.detach())
        return found


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation of each pair of maps; ties get their average rank.

    Ranks are whole or half numbers. Up to 450 × 450 pixels every sum of their products is exact in float64, which is
    why the result depends on neither batch nor device; in float32 such a sum would keep about five digits.

    Args:
        first, second: (B, 1, H, W) float32.

    Returns:
        (B,) float32 in [-1, 1]; NaN where a map is constant or holds NaN.

    Raises:
        ValueError: the maps differ in shape.

    Source: Spearman 1904; equal to `scipy.stats.spearmanr`.
    """
    return Comparison(first, ("spearman",)).compare(second)["spearman"]


def abs_spearman(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation of the maps' magnitudes. Arguments and result as for `spearman`.

    Source: Adebayo et al. 2018, "Sanity checks for saliency maps", Sec. 4.
    """
    return Comparison(first, ("abs_spearman",)).compare(second)["abs_spearman"]


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Mean structural similarity of each pair of maps, each divided by its largest magnitude.

    So scaled they lie in [-1, 1], a range of 2; a map that is zero everywhere stays so. Windows are 7 × 7, weighed
    evenly, with the sample covariance (divided by 48), and those that lie inside the map count. Everything is in
    float64: local variances are small differences of large means, and float32 would leave about four digits.

    Args:
        first, second: (B, 1, H, W) float32, at least 7 × 7.

    Returns:
        (B,) float32 in [-1, 1]; NaN where a map holds NaN.

    Raises:
        ValueError: the maps differ in shape, or are too small.

    Source: Wang et al. 2004; equal to `skimage.metrics.structural_similarity(data_range=2)` of float64 images. Adebayo
        et al. 2018 and Khakzar et al. 2019 compare maps by it; the published code of the latter's group takes windows
        of 5 × 5.
    """
    return Comparison(first, ("ssim",)).compare(second)["ssim"]

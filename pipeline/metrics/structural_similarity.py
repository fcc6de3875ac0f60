"""Mean structural similarity of maps."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.metrics.by_row import by_rows

WINDOW = 7
# (0.01 · range)² and (0.03 · range)², with the range 2 of maps in [-1, 1].
LUMINANCE, CONTRAST = 0.0004, 0.0036
UNBIASED = WINDOW**2 / (WINDOW**2 - 1)
_ROWS_ON_DEVICE = 64


def structural_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity of each pair, as `pipeline.metrics.similarity.ssim` says.

    Args:
        first, second: (B, 1, H, W) of one shape, not scaled yet.

    Returns:
        (B,) float32; NaN where a map is not finite.
    """
    if first.device.type == "cpu":
        one, two = first[:, 0].float().numpy(), second[:, 0].float().numpy()
        return by_rows(lambda rows: _mean_similarities(one, two, rows), len(one)).float()
    pairs = zip(torch.split(first, _ROWS_ON_DEVICE), torch.split(second, _ROWS_ON_DEVICE), strict=True)
    return torch.cat([_pooled_similarities(one.double(), two.double()) for one, two in pairs]).float()


def _pooled_similarities(x: Tensor, y: Tensor) -> Tensor:
    """The same of maps in float64, by the device's own pooling."""
    largest = [maps.abs().amax((2, 3), keepdim=True) for maps in (x, y)]
    x, y = (maps / torch.where(most == 0, 1.0, most) for maps, most in zip((x, y), largest, strict=True))
    mean_x, mean_y, squares, products = (
        F.avg_pool2d(maps, WINDOW, stride=1) for maps in (x, y, x.square() + y.square(), x * y)
    )
    variances = (squares - mean_x.square() - mean_y.square()) * UNBIASED
    covariance = (products - mean_x * mean_y) * UNBIASED
    above = (2 * mean_x * mean_y + LUMINANCE) * (2 * covariance + CONTRAST)
    return (above / ((mean_x.square() + mean_y.square() + LUMINANCE) * (variances + CONTRAST))).mean((1, 2, 3))


def _mean_similarities(first: NDArray[np.float32], second: NDArray[np.float32], rows: range) -> list[float]:
    """The same of some of the maps (B, H, W), one by one.

    Memory is taken once for all of them: to ask for it at each operation costs two threads more than the arithmetic.
    """
    height, width = first.shape[1:]
    x, y, mixed = np.empty((3, height, width))
    means, others, products, variances = np.empty((4, height - WINDOW + 1, width - WINDOW + 1))
    box = _BoxMean(height, width)
    values = []
    for row in rows:
        if not (_scale(first[row], x) and _scale(second[row], y)):
            values.append(np.nan)
            continue
        box(x, means)
        box(y, others)
        box(np.multiply(x, y, out=mixed), products)
        np.square(x, out=x)
        box(np.add(x, np.square(y, out=y), out=x), variances)
        product = np.multiply(means, others, out=mixed[: -WINDOW + 1, : -WINDOW + 1])
        squares = np.square(means, out=means)
        squares += np.square(others, out=others)
        products -= product
        products *= 2 * UNBIASED
        products += CONTRAST
        variances -= squares
        variances *= UNBIASED
        variances += CONTRAST
        product *= 2
        product += LUMINANCE
        squares += LUMINANCE
        products *= product
        variances *= squares
        products /= variances
        values.append(float(products.mean()))
    return values


def _scale(values: NDArray[np.float32], into: NDArray[np.float64]) -> bool:
    """One map in [-1, 1]; whether it is finite."""
    largest = float(max(values.max(), -values.min()))
    if not np.isfinite(largest):
        return False
    np.divide(values, largest if largest != 0 else 1.0, out=into, dtype=np.float64)
    return True


class _BoxMean:
    """Mean of every 7 × 7 window inside a map of this size; a sum of seven takes four additions."""

    def __init__(self, height: int, width: int) -> None:
        self._rows = np.empty((height - 1, width))
        self._sevens = np.empty((height - WINDOW + 1, width))
        self._columns = np.empty((height - WINDOW + 1, width - 1))

    def __call__(self, values: NDArray[np.float64], into: NDArray[np.float64]) -> None:
        """Writes the means of (H, W) values, (H − 6, W − 6)."""
        twos, sevens = np.add(values[1:], values[:-1], out=self._rows), self._sevens
        np.add(twos[2:-3], twos[:-5], out=sevens)
        sevens += twos[4:-1]
        sevens += values[6:]
        twos = np.add(sevens[:, 1:], sevens[:, :-1], out=self._columns)
        np.add(twos[:, 2:-3], twos[:, :-5], out=into)
        into += twos[:, 4:-1]
        into += sevens[:, 6:]
        into *= 1 / WINDOW**2

"""Similarities of maps against SciPy and scikit-image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity as reference_ssim
from torch import Tensor

from pipeline.metrics.rank_correlation import _device_correlation, _sorted_ranks, centred_ranks
from pipeline.metrics.similarity import Comparison, abs_spearman, spearman, ssim
from pipeline.metrics.structural_similarity import _pooled_similarities
from pipeline.noise import Noise


def pairs(kind: str, height: int = 48, width: int = 41, count: int = 3) -> tuple[Tensor, Tensor]:
    """Pairs of maps (B, 1, H, W) that are somewhat alike."""
    ids = [str(number) for number in range(count)]
    first, other = (Noise(0).normal("map", ids, (1, height, width), draw) for draw in (0, 1))
    second = first + other
    if kind == "tied":
        return (first * 3).round(), (second * 2).round()
    if kind == "rectified":
        return first.clamp(min=0), second.clamp(min=0)
    if kind == "signed zeros":
        return torch.where(first > 0, first, first * 0), torch.where(second > 1, second, second * 0)
    if kind == "smooth":
        coarse, fine = F.avg_pool2d(first, 9, 1, 4), F.avg_pool2d(second, 9, 1, 4)
        return coarse - coarse.amin(), fine - fine.amin()
    if kind == "plateau":
        # Nearly one everywhere: the small local variances that float32 would lose.
        return 1 - 1e-3 * first.abs(), 1 - 1e-3 * second.abs()
    if kind == "small numbers":
        return first * 1e-30, second * 1e-38
    if kind == "spikes":
        return first**9, second**9
    return first, second


KINDS = ("noise", "tied", "rectified", "signed zeros", "smooth", "plateau", "small numbers", "spikes")


@pytest.mark.parametrize("kind", KINDS)
def test_spearman_is_scipy_s(kind: str) -> None:
    first, second = pairs(kind)
    expected = [spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(spearman(first, second), expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_abs_spearman_is_scipy_s_of_magnitudes(kind: str) -> None:
    first, second = pairs(kind)
    expected = [spearmanr(a.abs().flatten(), b.abs().flatten()).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(abs_spearman(first, second), expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_ssim_is_scikit_image_s_of_maps_scaled_to_one(kind: str) -> None:
    first, second = pairs(kind)
    expected = []
    for a, b in zip(first[:, 0].double().numpy(), second[:, 0].double().numpy(), strict=True):
        expected.append(reference_ssim(a / np.abs(a).max(), b / np.abs(b).max(), data_range=2))
    np.testing.assert_allclose(ssim(first, second), expected, atol=1e-6)


def test_similarities_hold_at_the_size_of_imagenet() -> None:
    first, second = pairs("tied", 224, 224, 1)
    a, b = first[0, 0].double().numpy(), second[0, 0].double().numpy()
    assert spearman(first, second).item() == pytest.approx(spearmanr(a.ravel(), b.ravel()).statistic, abs=1e-6)
    expected = reference_ssim(a / np.abs(a).max(), b / np.abs(b).max(), data_range=2)
    assert ssim(first, second).item() == pytest.approx(expected, abs=1e-6)


def test_a_map_is_like_itself_and_unlike_its_opposite() -> None:
    first, _ = pairs("noise")
    assert spearman(first, 2 * first).tolist() == [1, 1, 1]
    assert spearman(first, -first).tolist() == [-1, -1, -1]
    assert abs_spearman(first, -first).tolist() == [1, 1, 1]
    assert ssim(first, 2 * first).tolist() == pytest.approx([1, 1, 1])


def test_average_ranks_are_those_of_the_definition() -> None:
    values = torch.tensor([[2.0, -1.0, 2.0, 0.0, -0.0, 2.0]])
    # Ascending: -1, then two zeros (ranks 1 and 2), then three twos (3, 4, 5); 2 r - 5.
    ranks = centred_ranks(values)
    assert ranks.values.tolist() == [[3, -5, 3, -2, -2, 3]]
    assert ranks.squares.tolist() == [9 + 25 + 9 + 4 + 4 + 9]


@pytest.mark.parametrize("row", [0, 2])
@pytest.mark.parametrize("broken", ["constant", "not a number", "negative not a number", "infinite"])
def test_what_has_no_similarity_is_not_a_number_and_leaves_other_rows_alone(row: int, broken: str) -> None:
    first, second = pairs("noise")
    expected = Comparison(first).compare(second)
    damaged = second.clone()
    if broken == "constant":
        damaged[row] = 0.25
    else:
        value = {"not a number": torch.nan, "negative not a number": -torch.nan, "infinite": torch.inf}[broken]
        damaged[row, 0, 3, 4] = value
    found = Comparison(first).compare(damaged)
    swapped = Comparison(damaged).compare(first)
    none = {
        "constant": ("spearman", "abs_spearman"),
        "infinite": ("ssim",),
    }.get(broken, ("spearman", "abs_spearman", "ssim"))
    for kind, values in found.items():
        others = [other for other in range(3) if other != row]
        assert torch.equal(values[others], expected[kind][others])
        assert values[row].isnan().item() == (kind in none)
        torch.testing.assert_close(values, swapped[kind], equal_nan=True)


def test_a_map_of_zeros_is_compared_as_it_is() -> None:
    first, _ = pairs("noise")
    zero = torch.zeros_like(first)
    scaled = first[0, 0].double().numpy() / first[0].abs().max().double().item()
    expected = reference_ssim(scaled, np.zeros_like(scaled), data_range=2)
    assert ssim(first, zero)[0].item() == pytest.approx(expected, abs=1e-6)
    assert ssim(zero, zero).tolist() == [1, 1, 1]
    assert spearman(first, zero).isnan().all()


def test_a_reference_is_compared_many_times() -> None:
    first, second = pairs("tied")
    comparison = Comparison(first, ("ssim", "spearman"))
    for others in (second, -second, first):
        found = comparison.compare(others)
        assert list(found) == ["ssim", "spearman"]
        assert torch.equal(found["spearman"], spearman(first, others))
        assert torch.equal(found["ssim"], ssim(first, others))


@pytest.fixture
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("two_threads")
def test_neither_batch_nor_threads_change_a_bit() -> None:
    first, second = pairs("rectified", count=37)
    together = Comparison(first).compare(second)
    torch.set_num_threads(1)
    for kind, values in together.items():
        alone = [Comparison(first[row : row + 1]).compare(second[row : row + 1])[kind] for row in range(37)]
        assert torch.equal(torch.cat(alone), values)


@pytest.mark.parametrize("kind", KINDS)
def test_what_other_devices_do_is_the_same(kind: str) -> None:
    # Their way through PyTorch's own operations, on the CPU.
    first, second = pairs(kind)
    ranks, expected = _sorted_ranks(first.flatten(1)), centred_ranks(first.flatten(1))
    assert torch.equal(ranks.values, expected.values)
    assert torch.equal(ranks.squares, expected.squares)
    correlations = _device_correlation(ranks, second.flatten(1), slice(0, 3))
    np.testing.assert_allclose(correlations, spearman(first, second), atol=1e-7)
    pooled = _pooled_similarities(first.double(), second.double())
    np.testing.assert_allclose(pooled, ssim(first, second), atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_gives_the_same(kind: str) -> None:
    first, second = pairs(kind, count=130)
    expected = Comparison(first).compare(second)
    for name, values in Comparison(first.cuda()).compare(second.cuda()).items():
        torch.testing.assert_close(values.cpu(), expected[name], atol=1e-6, rtol=0)


def test_maps_that_do_not_fit_are_refused() -> None:
    first, second = pairs("noise")
    with pytest.raises(ValueError, match=r"expected maps \(3, 1, 48, 41\), got \(2, 1, 48, 41\)"):
        spearman(first, second[:2])
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\), got \(3, 48, 41\)"):
        spearman(first[:, 0], second[:, 0])
    with pytest.raises(ValueError, match="at least 7 × 7 pixels, got \\(6, 41\\)"):
        ssim(first[:, :, :6], second[:, :, :6])

"""Maps are scaled for the eye as the paper says, and nothing stored is touched."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.report.heatmap import as_picture, display_scale, display_scale_signed, enlarged, overlay

RAMP = np.arange(101, dtype=np.float32).reshape(1, 101)


def test_display_scale_maps_the_80th_percentile_to_0_and_the_99th_to_1() -> None:
    scaled = display_scale(RAMP)[0]
    assert scaled[:81].max() == 0 and scaled[99:].min() == 1
    np.testing.assert_allclose(scaled[80:100], np.arange(20) / 19, rtol=1e-6)


def test_display_scale_takes_other_percentiles() -> None:
    np.testing.assert_allclose(display_scale(RAMP, 0, 100)[0], np.arange(101) / 100, rtol=1e-6)


def test_display_scale_of_a_constant_map_is_zero() -> None:
    assert not display_scale(np.full((4, 4), -3.0, np.float32)).any()


def test_display_scale_of_a_map_with_one_relevant_pixel_shows_it() -> None:
    attribution = np.zeros((20, 20), np.float32)
    attribution[3, 4] = 5
    scaled = display_scale(attribution)
    assert scaled[3, 4] == 1 and scaled.sum() == 1


def test_display_scale_leaves_the_map_as_it_was() -> None:
    attribution = RAMP.copy()
    display_scale(attribution)
    display_scale_signed(attribution)
    np.testing.assert_array_equal(attribution, RAMP)


@pytest.mark.parametrize(("low", "high"), [(99, 80), (80, 80), (-1, 99), (80, 101)])
def test_percentiles_in_the_wrong_order_are_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="percentiles"):
        display_scale(RAMP, low, high)


def test_the_signed_scale_keeps_zero_at_zero_and_is_odd() -> None:
    values = np.linspace(-2, 4, 61, dtype=np.float32).reshape(1, 61)
    scaled = display_scale_signed(values, 100)
    np.testing.assert_allclose(scaled, values / 4, atol=1e-7)
    np.testing.assert_array_equal(display_scale_signed(-values, 100), -scaled)


def test_the_signed_scale_of_zeros_is_zero() -> None:
    assert not display_scale_signed(np.zeros((3, 3), np.float32)).any()


def test_the_most_relevant_pixel_is_the_most_coloured() -> None:
    image = np.full((3, 10, 10), 128, np.uint8)
    attribution = np.zeros((1, 10, 10), np.float32)
    attribution[0, 2, 7] = 1
    pixels = np.asarray(overlay(image, attribution)).astype(int)
    spread = pixels.max(2) - pixels.min(2)
    assert np.unravel_index(spread.argmax(), spread.shape) == (2, 7)


def test_a_signed_overlay_is_red_in_favour_and_blue_against() -> None:
    image = np.full((3, 1, 2), 128, np.uint8)
    against, favour = np.asarray(overlay(image, np.array([[-1.0, 1.0]], np.float32), signed=True))[0].astype(int)
    assert favour[0] > favour[2] and against[2] > against[0]


def test_a_map_of_another_size_than_its_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(5, 4\).*\(4, 4\)"):
        overlay(np.zeros((3, 4, 4), np.uint8), np.zeros((5, 4), np.float32))


def test_small_pictures_are_enlarged_by_repeating_pixels() -> None:
    image = np.arange(3 * 32 * 32, dtype=np.uint32).astype(np.uint8).reshape(3, 32, 32)
    large = np.asarray(enlarged(as_picture(image)))
    np.testing.assert_array_equal(large, image.transpose(1, 2, 0).repeat(4, 0).repeat(4, 1))


def test_large_pictures_keep_their_size() -> None:
    assert enlarged(as_picture(np.zeros((3, 224, 200), np.uint8))).size == (200, 224)

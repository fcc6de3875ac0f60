"""Any image becomes 8-bit RGB of the size wanted, or a one-line reason."""

from __future__ import annotations

import errno
import io
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from pipeline.data import decode as decoding
from pipeline.data.decode import Geometry, UnusableImageError, decode, decode_all, fit_arrays, read_error
from pipeline.errors import RetryableError

AS_IT_IS = Geometry()


def picture(height: int = 20, width: int = 30, mode: str = "RGB") -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [rows * 255 / height, columns * 255 / width, (rows + columns) * 255 / (height + width)]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def reason(data: bytes, geometry: Geometry = AS_IT_IS) -> str:
    with pytest.raises(UnusableImageError) as caught:
        decode(data, geometry)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_png_keeps_every_value():
    assert np.array_equal(decode(encoded(picture()), AS_IT_IS), np.asarray(picture()))


def test_grey_is_repeated_in_three_channels():
    grey = picture(mode="L")
    assert np.array_equal(decode(encoded(grey), AS_IT_IS), np.repeat(np.asarray(grey)[..., None], 3, axis=2))


def test_one_bit_becomes_black_and_white():
    assert set(np.unique(decode(encoded(picture(mode="1")), AS_IT_IS))) == {0, 255}


def test_palette_is_looked_up():
    indexed = picture().quantize(16)
    assert np.array_equal(decode(encoded(indexed), AS_IT_IS), np.asarray(indexed.convert("RGB")))


def test_palette_with_transparency_gives_its_colours_without_a_warning():
    indexed = picture().quantize(16)
    data = encoded(indexed, transparency=bytes(range(16)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(decode(data, AS_IT_IS), np.asarray(indexed.convert("RGB")))


def test_alpha_is_dropped_and_not_composited():
    image = picture().convert("RGBA")
    image.putalpha(0)
    assert np.array_equal(decode(encoded(image), AS_IT_IS), np.asarray(picture()))


def test_cmyk_jpeg_shows_the_colours_of_the_picture():
    data = encoded(picture().convert("CMYK"), "JPEG", quality=98)
    assert np.abs(decode(data, AS_IT_IS).astype(int) - np.asarray(picture()).astype(int)).mean() < 4


def test_sixteen_bit_grey_keeps_its_high_byte():
    values = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
    assert decode(encoded(Image.fromarray(values)), AS_IT_IS)[0, :, 0].tolist() == [0, 0, 1, 255]


def test_float_image_is_refused_for_its_range():
    assert "no fixed range" in reason(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))


def test_exif_orientation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(picture(20, 30), "JPEG", exif=exif), AS_IT_IS).shape == (20, 30, 3)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_truncated_jpeg_fails(share: float, progressive: bool):
    noisy = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noisy), "JPEG", progressive=progressive)
    assert "truncated" in reason(data[: int(share * len(data))])


def test_truncated_png_fails():
    data = encoded(picture(100, 100))
    assert "cannot be decoded" in reason(data[: len(data) // 2])


def test_what_is_no_image_is_named_so():
    assert reason(b"hello, world").startswith("not an image in JPEG, PNG")
    assert reason(b"") == "the file is empty"


def test_postscript_is_never_interpreted():
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n").startswith("not an image")


def test_decompression_bomb_is_a_reason(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "decompression bomb" in reason(encoded(picture()))


def failing_first(monkeypatch: pytest.MonkeyPatch, error: Exception, times: int) -> None:
    """The first openings of an image fail."""
    original: Callable[..., Image.Image] = Image.open
    left = [times]

    def opening(*given: object, **options: object) -> Image.Image:
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return original(*given, **options)

    monkeypatch.setattr(decoding, "_MEMORY_PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(Image, "open", opening)


@pytest.mark.parametrize("error", [MemoryError(), OSError("out of memory error when reading image file")])
def test_a_moment_without_memory_fails_no_image(monkeypatch: pytest.MonkeyPatch, error: Exception):
    data = encoded(picture())
    failing_first(monkeypatch, error, times=3)
    assert np.array_equal(decode(data, AS_IT_IS), np.asarray(picture()))


def test_an_image_that_there_is_never_memory_for_is_a_reason(monkeypatch: pytest.MonkeyPatch):
    data = encoded(picture())
    failing_first(monkeypatch, MemoryError(), times=10)
    assert reason(data) == "cannot be decoded: MemoryError"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EIO, UnusableImageError),
        (errno.EACCES, UnusableImageError),
        (errno.EMFILE, RetryableError),
        (errno.ENOMEM, RetryableError),
        (errno.ENOTCONN, RetryableError),
        (errno.ESTALE, RetryableError),
    ],
)
def test_an_image_is_not_blamed_for_its_machine_or_mount(number: int, kind: type[Exception]):
    error = read_error("the file", OSError(number, "so it is"))
    assert type(error) is kind and str(error) == "the file cannot be read: so it is"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_give_pixels_or_a_reason_and_nothing_else(kind: str):
    generator = np.random.default_rng(1)
    data = np.frombuffer(encoded(picture(16, 16), kind), np.uint8)
    for _ in range(150):
        damaged = data.copy()
        damaged[generator.integers(0, len(data), 4)] = generator.integers(0, 256, 4)
        try:
            assert decode(damaged.tobytes(), Geometry(resize=8, crop=8)).shape == (8, 8, 3)
        except UnusableImageError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("size", [(37, 53), (53, 37), (40, 40), (33, 64), (31, 250)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_resize_and_crop_are_torchvisions(size: tuple[int, int], interpolation: str):
    image = picture(*size)
    theirs = v2.Compose([v2.Resize(32, v2.InterpolationMode(interpolation)), v2.CenterCrop(27)])(image)
    assert np.array_equal(decode(encoded(image), Geometry(32, 27, interpolation)), np.asarray(theirs))


def test_raw_and_encoded_images_come_out_alike():
    image = picture(37, 53)
    planes = np.asarray(image).transpose(2, 0, 1)[None]
    for geometry in (AS_IT_IS, Geometry(resize=24), Geometry(crop=16), Geometry(24, 16, "bicubic")):
        raw = fit_arrays(planes, geometry, None).images[0]
        assert np.array_equal(raw.transpose(1, 2, 0), decode(encoded(image), geometry))


def test_image_smaller_than_the_crop_is_refused_and_not_padded():
    assert "too small for the crop of 25" in reason(encoded(picture(20, 30)), Geometry(crop=25))
    small = fit_arrays(np.zeros((2, 3, 20, 30), np.uint8), Geometry(crop=25), (25, 25))
    assert sorted(small.reasons) == [0, 1]
    assert small.images.shape == (2, 3, 25, 25)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_neither_order_nor_reasons(threads: int):
    images = [picture(8, 8).rotate(10 * turn) for turn in range(23)]
    data = [encoded(image) for image in images]
    data[4], data[9] = b"broken", encoded(picture(9, 8))
    pixels = decode_all(data.__getitem__, len(data), AS_IT_IS, (8, 8), threads)
    assert set(pixels.reasons) == {4, 9}
    assert "9 x 8 pixels" in pixels.reasons[9]
    for row in set(range(23)) - {4, 9}:
        assert np.array_equal(pixels.images[row].transpose(1, 2, 0), np.asarray(images[row]))


def test_without_a_size_the_first_image_that_decodes_gives_it():
    data = [b"broken", encoded(picture(7, 9)), encoded(picture(8, 8))]
    pixels = decode_all(data.__getitem__, 3, AS_IT_IS, None, 1)
    assert pixels.images.shape == (3, 3, 7, 9)
    assert set(pixels.reasons) == {0, 2}

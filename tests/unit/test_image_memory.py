"""Where a training's images are: held where they fit, streamed where they do not or did not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.models import HeldImages, HeldTooMuchError, Images, ImageShards, Processes, StreamedImages, with_images
from pipeline.models.device_memory import Memory
from pipeline.models.device_name import device_name
from pipeline.models.image_memory import placement

SIZE = (10, 10)  # 300 bytes an image


def shards(count: int, shard: int = 10, buffer: int = 4) -> ImageShards:
    images = torch.zeros(count, 3, *SIZE, dtype=torch.uint8)
    counts = [min(shard, count - start) for start in range(0, count, shard)]
    return ImageShards(
        lambda start, stop: (images[start:stop], torch.zeros(stop - start)), count, SIZE, 2, shard, counts, buffer
    )


TRAINING, TEST = shards(1000), shards(200)  # 300,000 and 60,000 bytes; a shard has 3,000
PASSING, BUFFER = 3 * 3_000, (4 + 3) * 3_000


def with_memory(monkeypatch: pytest.MonkeyPatch, free: int, total: int = 10**9) -> None:
    monkeypatch.setattr("pipeline.models.image_memory.device_memory", lambda device: Memory(free, total))


@pytest.mark.parametrize(
    ("room", "training", "test", "text"),
    [
        (
            360_000,
            True,
            True,
            "held: 0.3 MB of training and 0.1 MB of test images; they may fill half of the memory",
        ),
        (359_999, True, False, "held, but for the test images: 0.3 MB"),
        (300_000 + PASSING, True, False, "held, but"),
        (300_000 + PASSING - 1, False, True, "streamed: 0.3 MB"),
        (60_000 + BUFFER, False, True, "streamed: "),
        (60_000 + BUFFER - 1, False, False, "streamed: "),
    ],
)
def test_both_splits_and_the_buffer_share_half_of_what_is_free(
    monkeypatch: pytest.MonkeyPatch, room: int, training: bool, test: bool, text: str
) -> None:
    with_memory(monkeypatch, 2 * room)
    found = placement(TRAINING, TEST)
    assert (found.training, found.test) == (training, test)
    assert found.text.startswith(text)


def test_several_trainings_on_a_device_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(monkeypatch, 800_000, 1_000_000)
    assert placement(TRAINING, TEST).training
    assert not placement(TRAINING, TEST, share=0.5).training


class Two(Processes):
    """Two processes, the other of which has little memory."""

    def __init__(self) -> None:
        super().__init__(0, 2)

    def least(self, value: int) -> int:
        return min(value, 1000)


def test_the_process_with_the_least_memory_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(monkeypatch, 10**9)
    assert not placement(TRAINING, TEST, processes=Two()).training


def no_memory_for_held(images: Images, test: Images) -> str:
    if isinstance(images, HeldImages):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return f"{type(images).__name__} {type(test).__name__}"


def test_memory_that_runs_out_while_training_on_held_images_makes_them_streamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_memory(monkeypatch, 10**9)
    used, why = with_images(TRAINING, TEST, no_memory_for_held)
    assert used == "StreamedImages StreamedImages"
    assert why == (
        "streamed: with images held on cpu, memory did not suffice (CUDA out of memory. Tried to allocate 2.00 GiB)"
    )


def test_memory_that_runs_out_while_holding_makes_them_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(monkeypatch, 10**9)

    def read(shards: ImageShards, device: str) -> HeldImages:
        raise MemoryError

    monkeypatch.setattr(HeldImages, "read", read)
    used, why = with_images(TRAINING, TEST, lambda images, test: type(images))
    assert used is StreamedImages
    assert why == "streamed: with images held on cpu, memory did not suffice (no memory left)"


def test_memory_that_runs_out_while_streaming_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(monkeypatch, 10**9)
    calls: list[type[Images]] = []

    def use(images: Images, test: Images) -> None:
        calls.append(type(images))
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        with_images(TRAINING, TEST, use)
    assert calls == [HeldImages, StreamedImages]


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(monkeypatch, 10**9)

    def use(images: Images, test: Images) -> None:
        raise RuntimeError("a kernel failed")

    with pytest.raises(RuntimeError, match="a kernel failed"):
        with_images(TRAINING, TEST, use)


def test_where_others_wait_all_have_to_start_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.models.image_memory.placement", lambda *rest, **more: placement(TRAINING, TEST))
    with_memory(monkeypatch, 10**9)
    with pytest.raises(HeldTooMuchError, match="memory did not suffice"):
        with_images(TRAINING, TEST, no_memory_for_held, processes=Two())
    used, why = with_images(TRAINING, TEST, no_memory_for_held, processes=Two(), streamed="the last time it did not")
    assert used.startswith("Streamed") and why == "streamed: the last time it did not"


@pytest.mark.parametrize(
    ("info", "expected"), [("processor : 0\nmodel name\t: AMD EPYC 7B13\nmodel name : other\n", "AMD EPYC 7B13")]
)
def test_the_processor_is_called_what_the_system_calls_it(tmp_path: Path, info: str, expected: str) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(info)
    assert device_name(torch.device("cpu"), file) == expected
    assert device_name(torch.device("cpu"), tmp_path / "none")

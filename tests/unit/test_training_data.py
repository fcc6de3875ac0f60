"""Images to train on: held and streamed ones, their order, their statistics, and which of both is chosen."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pipeline.errors import FatalError, RetryableError, ShardError
from pipeline.models import (
    HeldImages,
    Images,
    ImageShards,
    StreamedImages,
    TrainedNetwork,
    TrainingConfig,
    train_and_test,
    train_network,
)
from pipeline.models.image_order import ImageOrder
from pipeline.models.image_shards import Read

QUICK = TrainingConfig(epochs=2, batch_size=16, augmentation="flip_and_shift")


def make_images(count: int, size: tuple[int, int] = (8, 9)) -> tuple[Tensor, Tensor]:
    """Noise; the first pixel is the image's number."""
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 3, *size), generator=generator).to(torch.uint8)
    images[:, 0, 0, 0] = torch.arange(count)
    return images, torch.randint(0, 5, (count,), generator=generator)


def reading(images: Tensor, labels: Tensor) -> Read:
    return lambda start, stop: (images[start:stop], labels[start:stop])


def numbers(batches: list[tuple[Tensor, Tensor]]) -> list[int]:
    return [int(image[0, 0, 0]) for pixels, _ in batches for image in pixels]


def epoch(images: Images, batch: int = 16, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    return list(images.epoch(batch, torch.Generator().manual_seed(seed)))


def equal(first: list[tuple[Tensor, Tensor]], second: list[tuple[Tensor, Tensor]]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(first, second, strict=True)
    )


def same_weights(first: TrainedNetwork, second: TrainedNetwork) -> bool:
    return all(torch.equal(first.state_dict[key], second.state_dict[key]) for key in first.state_dict)


@pytest.mark.parametrize("shard", [100, 30, 7])
def test_streamed_images_that_the_buffer_holds_come_as_held_ones_do(shard: int) -> None:
    images, labels = make_images(100)
    held = HeldImages(images, labels, 5)
    streamed = StreamedImages(ImageShards(reading(images, labels), 100, (8, 9), 5, shard))
    assert len(streamed) == len(held) == 100
    assert equal(epoch(streamed), epoch(held))
    assert equal(list(streamed.in_order(16)), list(held.in_order(16)))
    assert streamed.statistics() == held.statistics()


@pytest.mark.parametrize("buffer", [1, 2, 3, 7])
def test_images_that_the_buffer_does_not_hold_come_in_one_order_held_and_streamed(buffer: int) -> None:
    images, labels = make_images(203)
    kept = torch.arange(203) % 7 != 0

    def read(start: int, stop: int) -> tuple[Tensor, Tensor]:
        return images[start:stop][kept[start:stop]], labels[start:stop][kept[start:stop]]

    shards = ImageShards(read, 203, (8, 9), 5, 16, buffer=buffer)
    held, streamed = HeldImages.read(shards), StreamedImages(shards)
    assert held.order == streamed.order
    first, second = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    for _ in range(3):
        assert equal(list(streamed.epoch(16, first)), list(held.epoch(16, second)))
    assert torch.equal(first.get_state(), second.get_state())


def test_streaming_holds_no_more_than_its_buffer() -> None:
    images, labels = make_images(250)
    shards = ImageShards(reading(images, labels), 250, (8, 9), 5, 10, buffer=4)
    plan = StreamedImages(shards).order.plan(torch.Generator().manual_seed(0))
    assert plan.slots == 40 and len(plan.rest) == 40
    assert all(int(filled.max()) < 40 for _, filled in plan.moves)


def test_what_the_buffer_holds_is_shuffled_over_all_of_it() -> None:
    """Each image of a full buffer is as likely to be used soon as any other, wherever it lies in the source."""
    order = ImageOrder((10,) * 40, 8)
    generator = torch.Generator().manual_seed(0)
    waited = torch.zeros(400)
    for _ in range(200):
        rows = order.rows(generator)
        waited[rows] += torch.arange(400)
    # All shards change places from epoch to epoch: the mean place of every image is the middle.
    assert (waited / 200 - 199.5).abs().max() < 5 * 400 / 12**0.5 / 200**0.5


@pytest.mark.parametrize("counts", [None, [45, 45, 10]])
def test_a_network_trained_on_streamed_images_is_that_of_held_ones(counts: list[int] | None) -> None:
    images, labels = make_images(100, (16, 16))
    test_images, test_labels = make_images(70, (16, 16))
    shards = ImageShards(reading(images, labels), 100, (16, 16), 5, 45, counts)
    assert shards.buffer >= len(shards)
    test_shards = ImageShards(reading(test_images, test_labels), 70, (16, 16), 5, 32)
    held = train_and_test(
        "cifar_cnn4",
        HeldImages(images, labels, 5),
        HeldImages(test_images, test_labels, 5),
        config=QUICK,
        training_accuracy=True,
    )
    streamed = train_and_test(
        "cifar_cnn4", StreamedImages(shards), StreamedImages(test_shards), config=QUICK, training_accuracy=True
    )
    assert same_weights(held, streamed)
    assert held.history == streamed.history and held.metadata == streamed.metadata
    assert (held.accuracy, held.test_accuracy) == (streamed.accuracy, streamed.test_accuracy)
    assert same_weights(held, train_network("cifar_cnn4", images, labels, classes=5, config=QUICK))


def test_a_set_larger_than_the_buffer_trains_the_same_network_held_and_streamed() -> None:
    images, labels = make_images(100, (16, 16))
    shards = ImageShards(reading(images, labels), 100, (16, 16), 5, 8, buffer=3)
    held, streamed = (
        train_and_test("cifar_cnn4", source, config=QUICK, training_accuracy=True)
        for source in (HeldImages.read(shards), StreamedImages(shards))
    )
    assert same_weights(held, streamed)
    assert held.history == streamed.history and held.accuracy == streamed.accuracy
    assert not same_weights(held, train_network("cifar_cnn4", images, labels, classes=5, config=QUICK))


def test_batches_pair_images_with_their_labels_once_each() -> None:
    images, labels = make_images(100)
    shards = ImageShards(reading(images, labels), 100, (8, 9), 5, 9, buffer=3)
    for source in (HeldImages(images, labels, 5), HeldImages.read(shards), StreamedImages(shards)):
        batches = epoch(source)
        order = numbers(batches)
        assert sorted(order) == list(range(100))
        assert [len(targets) for _, targets in batches] == [16] * 6 + [4]
        assert torch.equal(torch.cat([pixels for pixels, _ in batches]), images[order])
        assert torch.equal(torch.cat([targets for _, targets in batches]), labels[order])
        assert numbers(list(source.in_order(16))) == list(range(100))
        assert all(pixels.is_contiguous(memory_format=torch.channels_last) for pixels, _ in batches)


@pytest.mark.parametrize("source", ["held", "streamed"])
def test_order_changes_from_epoch_to_epoch_and_repeats_with_the_seed(source: str) -> None:
    images, labels = make_images(60)
    shards = ImageShards(reading(images, labels), 60, (8, 9), 5, 6, buffer=3)
    data = HeldImages(images, labels, 5) if source == "held" else StreamedImages(shards)
    generator = torch.Generator().manual_seed(0)
    first, second = (numbers(list(data.epoch(16, generator))) for _ in range(2))
    assert first != second
    generator.manual_seed(0)
    assert [numbers(list(data.epoch(16, generator))) for _ in range(2)] == [first, second]


def test_the_order_is_drawn_when_an_epoch_is_asked_for() -> None:
    images, labels = make_images(60)
    data = StreamedImages(ImageShards(reading(images, labels), 60, (8, 9), 5, 6, buffer=3))
    generator = torch.Generator().manual_seed(0)
    data.epoch(16, generator)
    after = generator.get_state()
    batches = data.epoch(16, generator.manual_seed(0))
    list(batches)
    assert torch.equal(generator.get_state(), after)


def test_images_come_from_the_shards_that_the_buffer_has_room_for() -> None:
    images, labels = make_images(250)
    visited: list[int] = []

    def read(start: int, stop: int) -> tuple[Tensor, Tensor]:
        visited.append(start // 10)
        return images[start:stop], labels[start:stop]

    order = numbers(epoch(StreamedImages(ImageShards(read, 250, (8, 9), 5, 10, [10] * 25, 5))))
    assert sorted(visited) == list(range(25)) and visited != sorted(visited)
    # Five shards are there at the start, and one more after every ten images.
    turns = [visited.index(number // 10) for number in order]
    assert all(turn <= 4 + place // 10 for place, turn in enumerate(turns))
    # Were shards not mixed, an image's turn would be its place's; here some wait for many shards to go by.
    assert len(set(turns[:10])) > 2
    assert max(place // 10 - turn for place, turn in enumerate(turns)) > 10


def test_shards_that_lack_images_leave_none_twice_and_none_out() -> None:
    images, labels = make_images(100)
    kept = torch.arange(100) % 7 != 0
    kept[20:30] = False

    def read(start: int, stop: int) -> tuple[Tensor, Tensor]:
        return images[start:stop][kept[start:stop]], labels[start:stop][kept[start:stop]]

    expected = [number for number in range(100) if kept[number]]
    few, shards = ImageShards(read, 100, (8, 9), 5, 10, buffer=3), ImageShards(read, 100, (8, 9), 5, 10)
    for source in (HeldImages.read(few), HeldImages.read(shards), StreamedImages(few), StreamedImages(shards)):
        assert len(source) == len(expected)
        assert sorted(numbers(epoch(source))) == expected
        assert numbers(list(source.in_order(16))) == expected
    assert equal(epoch(HeldImages.read(shards)), epoch(HeldImages(images[kept], labels[kept], 5)))


def test_the_next_shard_is_read_while_one_is_in_use() -> None:
    images, labels = make_images(30)
    started = [threading.Event() for _ in range(3)]

    def read(start: int, stop: int) -> tuple[Tensor, Tensor]:
        started[start // 10].set()
        return images[start:stop], labels[start:stop]

    visited = ImageShards(read, 30, (8, 9), 5, 10).visited(range(3))
    next(visited)
    assert started[1].wait(5)
    assert not started[2].is_set()
    visited.close()  # type: ignore[attr-defined]
    assert not any(thread.name.startswith("training-images") for thread in threading.enumerate())


def test_a_failure_to_read_reaches_the_training() -> None:
    images, labels = make_images(30)

    def read(start: int, stop: int) -> tuple[Tensor, Tensor]:
        if start == 20:
            raise RetryableError("the store does not answer")
        return images[start:stop], labels[start:stop]

    shards = ImageShards(read, 30, (8, 9), 5, 10, [10, 10, 10])
    with pytest.raises(RetryableError, match="does not answer"):
        train_and_test("cifar_cnn4", StreamedImages(shards), config=QUICK, mean=[0.5] * 3, std=[0.5] * 3)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (
            lambda images, labels: (images[1:], labels[1:]),
            ShardError,
            r"positions 10 to 19 .* \(9, 3, 8, 9\) .*\(10, 3",
        ),
        (lambda images, labels: (images.float(), labels), ShardError, r"torch\.float32 .* expected uint8"),
        (lambda images, labels: (images, labels[1:]), ShardError, r"labels \(9,\), expected"),
        (lambda images, labels: (images, labels + 5), FatalError, r"labels run from \d to \d, expected 0 to 4"),
    ],
)
def test_what_does_not_fit_a_shard_is_named(
    changed: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], error: type[Exception], message: str
) -> None:
    images, labels = make_images(30)

    def read(start: int, stop: int) -> tuple[Tensor, Tensor]:
        return (
            changed(images[start:stop], labels[start:stop]) if start == 10 else (images[start:stop], labels[start:stop])
        )

    with pytest.raises(error, match=message):
        list(ImageShards(read, 30, (8, 9), 5, 10, [10, 10, 10]).visited(range(3)))


def test_a_shard_of_large_images_is_smaller() -> None:
    read = reading(*make_images(1))
    assert ImageShards(read, 10_000, (32, 32), 5).shard == 256
    large = ImageShards(read, 10_000, (512, 512), 5).shard
    assert large * 3 * 512 * 512 <= 32 * 2**20 < (large + 1) * 3 * 512 * 512


def test_test_images_have_to_fit_the_training() -> None:
    images, labels = make_images(20)
    training = HeldImages(images, labels, 5)
    with pytest.raises(FatalError, match="20 test images of 6 classes on cpu, expected one or more of 5 classes"):
        train_and_test("cifar_cnn4", training, HeldImages(images, labels, 6))
    with pytest.raises(FatalError, match="0 test images"):
        train_and_test("cifar_cnn4", training, HeldImages(images[:0], labels[:0], 5))


def test_accuracies_are_those_of_the_images_that_they_name() -> None:
    images = torch.zeros(40, 3, 8, 8, dtype=torch.uint8)
    labels = torch.arange(40) % 2
    images[labels == 1] = 255
    training = HeldImages(images, labels, 2)
    # Three of four are labelled the other way round.
    test = HeldImages(images[:8], torch.tensor([0, 1, 1, 0, 1, 0, 1, 0]), 2)
    config = TrainingConfig(epochs=8, batch_size=8, augmentation="none")
    trained = train_and_test("cifar_cnn4", training, test, config=config, training_accuracy=True)
    assert (trained.accuracy, trained.test_accuracy) == (1.0, 0.25)
    assert train_and_test("cifar_cnn4", training, config=config).accuracy is None

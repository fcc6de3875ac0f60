"""Checkpoints of a training: going on from one changes nothing, and a wrong one is refused."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from pipeline.models import CheckpointError, HeldImages, TrainedNetwork, TrainingConfig, train_and_test
from pipeline.models.training_checkpoint import Checkpoint

QUICK = TrainingConfig(epochs=3, batch_size=16, augmentation="flip_and_shift")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Two threads that wait for each other are many times slower than one, once other tests run beside them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data() -> HeldImages:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (100, 3, 16, 16), generator=generator).to(torch.uint8)
    return HeldImages(images, torch.randint(0, 5, (100,), generator=generator), 5)


def train(
    data: HeldImages, name: str = "cifar_cnn4", config: TrainingConfig = QUICK, **settings: object
) -> TrainedNetwork:
    return train_and_test(name, data, config=config, checkpoint_seconds=0, **settings)  # type: ignore[arg-type]


def with_dropout(name: str, classes: int, *, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8 * 14 * 14, 5)
        )


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("network", ["cifar_cnn4", "dropout"])
def test_a_stop_after_any_epoch_changes_nothing(
    data: HeldImages, monkeypatch: pytest.MonkeyPatch, network: str, optimizer: str
) -> None:
    if network == "dropout":
        monkeypatch.setattr("pipeline.models.training.build_network", with_dropout)
    config = QUICK.model_copy(update={"optimizer": optimizer, "learning_rate": 0.01})
    kept: list[bytes] = []
    whole = train(data, config=config, keep=kept.append)
    assert len(kept) == 3
    for checkpoint in kept:
        torch.rand(7)  # what others draw meanwhile
        resumed = train(data, config=config, resume=checkpoint)
        assert resumed.history == whole.history
        assert all(torch.equal(resumed.state_dict[key], whole.state_dict[key]) for key in whole.state_dict)


def test_checkpoints_leave_the_training_alone(data: HeldImages) -> None:
    kept: list[bytes] = []
    watched, plain = train(data, keep=kept.append), train(data)
    assert all(torch.equal(watched.state_dict[key], plain.state_dict[key]) for key in plain.state_dict)


def test_going_on_trains_only_what_is_left_and_counts_all_seconds(
    data: HeldImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bytes] = []
    train(data, keep=kept.append)
    asked: list[int] = []
    monkeypatch.setattr(
        HeldImages, "epoch", lambda self, *rest, epoch=HeldImages.epoch: asked.append(1) or epoch(self, *rest)
    )
    identity = torch.load(io.BytesIO(kept[1][52:]), weights_only=True)["identity"]
    slow = Checkpoint.from_bytes(kept[1], identity)
    object.__setattr__(slow, "seconds", 1000.0)
    again: list[bytes] = []
    resumed = train(data, resume=slow.to_bytes(), keep=again.append)
    assert len(asked) == len(again) == 1
    assert 1000 < resumed.seconds < 1100
    assert 1000 < Checkpoint.from_bytes(again[0], identity).seconds <= resumed.seconds


def test_checkpoints_are_kept_no_oftener_than_asked(data: HeldImages, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 25))
    monkeypatch.setattr("pipeline.models.training.time.perf_counter", lambda: float(next(clock)))
    kept: list[bytes] = []
    config = QUICK.model_copy(update={"epochs": 7})
    train_and_test("cifar_cnn4", data, config=config, keep=kept.append, checkpoint_seconds=60)
    # The clock moves by 25 seconds an epoch: 75 seconds are over after the third and after the sixth.
    histories = [torch.load(io.BytesIO(content[52:]), weights_only=True)["history"] for content in kept]
    assert [len(history) for history in histories] == [3, 6]


@pytest.fixture(scope="module")
def checkpoint(data: HeldImages) -> bytes:
    kept: list[bytes] = []
    train(data, config=QUICK.model_copy(update={"epochs": 1}), keep=kept.append)
    return kept[0]


@pytest.mark.parametrize("where", [0, 19, 30, 60, 5000, -1])
def test_a_changed_byte_is_noticed(data: HeldImages, checkpoint: bytes, where: int) -> None:
    changed = bytearray(checkpoint)
    changed[where] ^= 1
    with pytest.raises(CheckpointError, match=f"checkpoint of {len(checkpoint)} bytes is damaged"):
        train(data, config=QUICK.model_copy(update={"epochs": 1}), resume=bytes(changed))


@pytest.mark.parametrize("length", [0, 10, 52, 5000])
def test_a_cut_checkpoint_is_noticed(data: HeldImages, checkpoint: bytes, length: int) -> None:
    with pytest.raises(CheckpointError, match=f"of {length} bytes is damaged"):
        train(data, config=QUICK.model_copy(update={"epochs": 1}), resume=checkpoint[:length])


def test_a_checkpoint_that_would_run_code_is_refused(data: HeldImages) -> None:
    buffer = io.BytesIO()
    torch.save({"identity": io.BytesIO()}, buffer)
    content = buffer.getvalue()
    with pytest.raises(CheckpointError, match="cannot be read"):
        train(data, resume=b"heatline training 2\n" + hashlib.sha256(content).digest() + content)


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 1},
        {"config": QUICK.model_copy(update={"learning_rate": 0.5})},
        {"name": "cifar_resnet8"},
        {"mean": [0.1, 0.2, 0.3]},
    ],
)
def test_a_checkpoint_of_another_training_is_refused(
    data: HeldImages, checkpoint: bytes, settings: dict[str, object]
) -> None:
    config = {"config": QUICK.model_copy(update={"epochs": 1})}
    assert len(train(data, resume=checkpoint, **config).history) == 1  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"of training [0-9a-f]{16}, expected [0-9a-f]{16}"):
        train(data, resume=checkpoint, **{**config, **settings})  # type: ignore[arg-type]


def test_a_checkpoint_of_other_images_is_refused(data: HeldImages, checkpoint: bytes) -> None:
    images = torch.zeros(99, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(CheckpointError, match="of training"):
        train(HeldImages(images, torch.zeros(99), 5), config=QUICK.model_copy(update={"epochs": 1}), resume=checkpoint)


def test_a_refused_checkpoint_leaves_the_global_random_state_alone(data: HeldImages, checkpoint: bytes) -> None:
    before: Tensor = torch.get_rng_state()
    with pytest.raises(CheckpointError):
        train(data, resume=checkpoint[:-1])
    assert torch.equal(torch.get_rng_state(), before)

"""Training: what it reaches, and that it repeats itself."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from pipeline.errors import FatalError
from pipeline.models import ModelConfig, TrainedNetwork, TrainingConfig, load_classifier, train_network
from pipeline.models.augmentation import Augmentation, moved_images
from pipeline.models.optimization import one_cycle_rate
from pipeline.models.training_run import training_precision

QUICK = TrainingConfig(epochs=2, batch_size=32)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Two threads that wait for each other are many times slower than one, once other tests run beside them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    """1,797 digits of 28 x 28, shuffled."""
    loaded = load_digits()
    pixels = torch.from_numpy(loaded.images).float()[:, None] / 16 * 255
    images = F.interpolate(pixels, size=(28, 28), mode="bilinear").round().to(torch.uint8).repeat(1, 3, 1, 1)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order], torch.from_numpy(loaded.target)[order]


def train(digits: tuple[Tensor, Tensor], name: str = "mnist_cnn2", seed: int = 0) -> TrainedNetwork:
    return train_network(name, digits[0][:200], digits[1][:200], classes=10, config=QUICK, seed=seed)


@pytest.mark.parametrize(("name", "epochs"), [("mnist_cnn2", 5), ("cifar_cnn4", 4)])
def test_defaults_take_digits_to_97_percent(digits: tuple[Tensor, Tensor], name: str, epochs: int) -> None:
    images, labels = digits
    config = TrainingConfig(epochs=epochs)
    trained = train_network(name, images[:1400], labels[:1400], classes=10, config=config)
    model = load_classifier(ModelConfig(name=name, weights="train"), classes=10, weights=trained.to_bytes())
    with torch.no_grad():
        right = model(images[1400:].float() / 255).argmax(1) == labels[1400:]
    assert right.float().mean() >= 0.97


def test_same_seed_trains_the_same_weights(digits: tuple[Tensor, Tensor]) -> None:
    first, again, other = train(digits), train(digits), train(digits, seed=1)
    assert all(torch.equal(first.state_dict[key], again.state_dict[key]) for key in first.state_dict)
    assert not torch.equal(first.state_dict["features.0.weight"], other.state_dict["features.0.weight"])


def test_training_leaves_the_global_random_state_alone(digits: tuple[Tensor, Tensor]) -> None:
    before = torch.get_rng_state()
    train(digits)
    assert torch.equal(torch.get_rng_state(), before)


def test_global_random_state_does_not_reach_dropout(
    digits: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(name: str, classes: int, *, seed: int) -> nn.Module:
        network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(2352, classes))
        nn.init.zeros_(network[2].weight)
        nn.init.zeros_(network[2].bias)
        return network

    monkeypatch.setattr("pipeline.models.training.build_network", build)
    weights = []
    for state in (1, 2):
        torch.manual_seed(state)
        weights.append(train(digits).state_dict["2.weight"])
    assert torch.equal(weights[0], weights[1])


def test_mean_and_deviation_default_to_those_of_the_images(digits: tuple[Tensor, Tensor]) -> None:
    images = digits[0][:200].clone()
    images[:, 2] = 7
    trained = train_network("mnist_cnn2", images, digits[1][:200], classes=10, config=QUICK)
    mean = [float(value) for value in trained.metadata["mean"].split(",")]
    std = [float(value) for value in trained.metadata["std"].split(",")]
    pixels = images.double() / 255
    assert mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert std[:2] == pytest.approx(pixels.std((0, 2, 3), correction=0)[:2].tolist())
    assert std[2] == pytest.approx(1 / 255)


def test_accuracy_is_that_of_the_stored_weights(digits: tuple[Tensor, Tensor]) -> None:
    images, labels = digits[0][:200], digits[1][:200]
    trained = train(digits, "cifar_cnn4")
    model = load_classifier(ModelConfig(name="cifar_cnn4", weights="train"), classes=10, weights=trained.to_bytes())
    with torch.no_grad():
        right = model(images.float() / 255).argmax(1) == labels
    assert trained.accuracy == pytest.approx(right.float().mean().item())
    assert all(tensor.is_contiguous() for tensor in trained.state_dict.values())


def test_history_has_an_entry_for_each_epoch(digits: tuple[Tensor, Tensor]) -> None:
    trained = train_network("mnist_cnn2", digits[0][:97], digits[1][:97], classes=10, config=QUICK)
    assert [epoch.number for epoch in trained.history] == [1, 2]


def test_a_single_image_left_over_does_not_break_batch_norm(digits: tuple[Tensor, Tensor]) -> None:
    trained = train_network("cifar_cnn4", digits[0][:33], digits[1][:33], classes=10, config=QUICK)
    assert int(trained.state_dict["features.1.num_batches_tracked"]) == 2


@pytest.mark.parametrize("settings", [{"optimizer": "sgd", "learning_rate": 0.02}, {"momentum": 0.0}])
def test_either_optimizer_learns(digits: tuple[Tensor, Tensor], settings: dict[str, object]) -> None:
    config = TrainingConfig.model_validate({"epochs": 4, "batch_size": 32, "augmentation": "none", **settings})
    trained = train_network("mnist_cnn2", digits[0][:200], digits[1][:200], classes=10, config=config)
    assert trained.accuracy > 0.7


def test_images_move_down_and_right_and_black_comes_in() -> None:
    images = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3).repeat(2, 3, 1, 1)
    moved = moved_images(images, torch.tensor([1, -1]), torch.tensor([-1, 0]))
    assert moved[0, 2].tolist() == [[0, 0, 0], [2, 3, 0], [5, 6, 0]]
    assert moved[1, 0].tolist() == [[4, 5, 6], [7, 8, 9], [0, 0, 0]]


def test_images_are_mirrored_before_they_move() -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(1, 256, (20, 3, 5, 7)).astype(np.uint8)
    rows, columns, flips = draw.integers(-5, 6, 20), draw.integers(-7, 8, 20), draw.random(20) < 0.5
    expected = np.zeros_like(images)
    for image, moved, down, right, flip in zip(images, expected, rows, columns, flips, strict=True):
        mirrored = image[:, :, ::-1] if flip else image
        for y, x in np.ndindex(5, 7):
            if 0 <= y - down < 5 and 0 <= x - right < 7:
                moved[:, y, x] = mirrored[:, y - down, x - right]
    found = moved_images(*map(torch.from_numpy, (images, rows, columns, flips)))
    assert np.array_equal(found.numpy(), expected)


def test_an_image_is_augmented_by_its_place_in_the_epoch_and_not_by_its_batch() -> None:
    images = torch.randint(0, 256, (30, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    config = TrainingConfig(augmentation="flip_and_shift", shift=0.25)
    drawn = Augmentation.draw(config, 30, (8, 8), torch.Generator().manual_seed(1), torch.device("cpu"))
    pieces = [drawn(images[start : start + 7], start) for start in range(0, 30, 7)]
    assert torch.equal(torch.cat(pieces), drawn(images, 0))


@pytest.mark.parametrize(("steps", "warm_up"), [(2, 0.9), (3, 0.25), (40, 0.25), (41, 0.3), (7, 0.99)])
def test_the_rate_is_that_of_the_one_cycle_schedule(steps: int, warm_up: float) -> None:
    config = TrainingConfig(learning_rate=0.03, warm_up=warm_up)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.03, total_steps=steps, pct_start=warm_up, cycle_momentum=False
    )
    expected = []
    for _ in range(steps):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        if len(expected) < steps:
            schedule.step()
    assert [one_cycle_rate(step, steps, config) for step in range(steps)] == expected


def test_a_rise_of_no_steps_begins_at_the_peak(digits: tuple[Tensor, Tensor]) -> None:
    config = TrainingConfig(epochs=1, batch_size=50, warm_up=0.25)
    assert one_cycle_rate(0, 4, config) == config.learning_rate
    trained = train_network("mnist_cnn2", digits[0][:200], digits[1][:200], classes=10, config=config)
    assert len(trained.history) == 1


def test_explicit_bfloat16_rounds_the_passes(digits: tuple[Tensor, Tensor]) -> None:
    few = (digits[0][:64], digits[1][:64])
    config = TrainingConfig(epochs=1)
    auto, exact, rounded = (
        train_network("mnist_cnn2", *few, classes=10, config=config.model_copy(update={"precision": precision}))
        for precision in ("auto", "float32", "bfloat16")
    )
    assert torch.equal(auto.state_dict["features.0.weight"], exact.state_dict["features.0.weight"])
    assert rounded.state_dict["features.0.weight"].dtype == torch.float32
    # One step: the losses differ by what eight bits of mantissa lose, and by no more.
    assert rounded.history[0].loss != exact.history[0].loss
    assert rounded.history[0].loss == pytest.approx(exact.history[0].loss, rel=2**-7)


@pytest.mark.parametrize(
    ("capability", "precision", "expected"),
    [
        ((7, 5), "auto", torch.float32),
        ((8, 0), "auto", torch.bfloat16),
        ((9, 0), "float32", torch.float32),
        ((9, 0), "bfloat16", torch.bfloat16),
    ],
)
def test_precision_is_what_the_gpu_has(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str, expected: torch.dtype
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    config = TrainingConfig.model_validate({"precision": precision})
    assert training_precision(config, torch.device("cuda", 0)) == expected


def test_a_gpu_without_bfloat16_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (7, 5))
    with pytest.raises(FatalError, match=r"capability 8\.0, cuda:0 has 7\.5; take float32 or auto"):
        training_precision(TrainingConfig(precision="bfloat16"), torch.device("cuda", 0))


def test_a_loss_that_runs_away_stops_training(digits: tuple[Tensor, Tensor]) -> None:
    config = TrainingConfig(epochs=2, optimizer="sgd", learning_rate=1e12)
    with pytest.raises(FatalError, match=r"diverged in epoch 1.*lower learning_rate"):
        train_network("mnist_cnn2", digits[0][:200], digits[1][:200], classes=10, config=config)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(4, 3, 28, 28), torch.zeros(4).long(), r"torch\.float32 .* expected uint8"),
        (torch.zeros(4, 1, 28, 28).byte(), torch.zeros(4).long(), r"\(4, 1, 28, 28\)"),
        (torch.zeros(4, 3, 28, 28).byte(), torch.zeros(3).long(), r"labels are \(3,\)"),
        (torch.zeros(1, 3, 28, 28).byte(), torch.zeros(1).long(), "at least two images"),
        (torch.zeros(4, 3, 28, 28).byte(), torch.full((4,), 10), "from 10 to 10, expected 0 to 9"),
    ],
)
def test_data_that_does_not_fit_is_named(images: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(FatalError, match=message):
        train_network("mnist_cnn2", images, labels, classes=10)

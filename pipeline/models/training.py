"""Training small networks: for quick starts without weights, and for remove-and-retrain benchmarks."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import FatalError
from pipeline.models.build import build_network
from pipeline.models.config import TrainingConfig
from pipeline.models.weights import weights_bytes, weights_metadata
from pipeline.noise import Noise


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass: its number from 1, the mean loss and the accuracy on the images as augmented."""

    number: int
    loss: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """What training gives.

    Attributes:
        state_dict: parameters and buffers on the CPU, contiguous.
        metadata: architecture, number of classes and normalisation, as stored with the weights.
        accuracy: share of the training images classified correctly at the end, without augmentation.
        seconds: wall clock.
        history: one entry an epoch.
    """

    state_dict: dict[str, Tensor]
    metadata: dict[str, str]
    accuracy: float
    seconds: float
    history: tuple[Epoch, ...]

    def to_bytes(self) -> bytes:
        """A safetensors file that `load_classifier` takes."""
        return weights_bytes(self.state_dict, self.metadata)


def train_network(
    name: str,
    images: Tensor,
    labels: Tensor,
    *,
    classes: int,
    config: TrainingConfig | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> TrainedNetwork:
    """Trains a network from scratch.

    The same arguments give the same weights on the same hardware and number of threads. The global random
    state is left as it was.

    Args:
        name: see `build_network`.
        images: (N, 3, H, W) uint8; all of them are held on the device.
        labels: (N,) integers in [0, classes).
        classes: number of logits.
        config: default: `TrainingConfig()`.
        mean, std: normalisation, per channel in [0, 1]; default: those of the images.
        seed: decides initial weights, order, augmentation and dropout.
        device: where to train.

    Returns:
        The weights, their metadata, and how training went.

    Raises:
        FatalError: images or labels do not fit, or the loss is not finite.
    """
    start = time.perf_counter()
    config = config if config is not None else TrainingConfig()
    device = torch.device(device)
    _check(images, labels, classes)
    images, labels = images.to(device), labels.to(device, torch.int64)
    measured_mean, measured_std = _channel_statistics(images)
    mean = [float(value) for value in mean] if mean is not None else measured_mean
    std = [float(value) for value in std] if std is not None else measured_std
    # The order of channels in memory that convolutions are fastest in, on CPUs and GPUs (measured: a fifth).
    network = build_network(name, classes, seed=seed).to(device).to(memory_format=torch.channels_last)
    normalise = _Normalisation(mean, std, device)
    with _reproducible(device, seed):
        history = _fit(network, normalise, images, labels, config, seed)
    accuracy = _accuracy(network, normalise, images, labels)
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    return TrainedNetwork(
        state,
        weights_metadata(name, classes, mean, std),
        accuracy,
        time.perf_counter() - start,
        tuple(history),
    )


class _Normalisation:
    """uint8 pixels to normalised float32, (x / 255 - mean) / std, in one multiplication and addition."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        self.scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(1, 3, 1, 1)
        self.offset = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(1, 3, 1, 1)

    def __call__(self, pixels: Tensor) -> Tensor:
        return (pixels * self.scale + self.offset).contiguous(memory_format=torch.channels_last)


def _fit(
    network: nn.Module,
    normalise: _Normalisation,
    images: Tensor,
    labels: Tensor,
    config: TrainingConfig,
    seed: int,
) -> list[Epoch]:
    count = len(images)
    steps = -(-count // config.batch_size)
    if count % config.batch_size == 1:
        steps -= 1  # batch norm cannot train on one image; another one is left out in each epoch
    generator = torch.Generator().manual_seed(seed)
    optimizer = _optimizer(network, config)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=config.learning_rate,
        total_steps=max(2, steps * config.epochs),
        pct_start=config.warm_up,
        cycle_momentum=False,
    )
    history = []
    for number in range(1, config.epochs + 1):
        network.train()
        loss_sum, correct = torch.zeros((), device=images.device), torch.zeros((), device=images.device)
        seen = 0
        for pixels, targets in _batches(images, labels, config, steps, generator):
            logits = network(normalise(pixels))
            loss = F.cross_entropy(logits, targets, label_smoothing=config.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            # Summed on the device: reading a number each step would make it wait.
            loss_sum += loss.detach() * len(targets)
            correct += (logits.detach().argmax(1) == targets).sum()
            seen += len(targets)
        epoch = Epoch(number, loss_sum.item() / seen, correct.item() / seen)
        if not math.isfinite(epoch.loss):
            raise FatalError(
                f"training diverged in epoch {number}: the loss is {epoch.loss}; lower learning_rate "
                f"(now {config.learning_rate:g})"
            )
        history.append(epoch)
    return history


def _optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    if config.optimizer == "adamw":
        return torch.optim.AdamW(
            network.parameters(),
            lr=config.learning_rate,
            betas=(config.momentum, 0.999),
            weight_decay=config.weight_decay,
        )
    return torch.optim.SGD(
        network.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.momentum > 0,
    )


def _batches(
    images: Tensor, labels: Tensor, config: TrainingConfig, steps: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of augmented uint8 images and labels; its random numbers are drawn on the CPU beforehand."""
    count, _, height, width = images.shape
    order = torch.randperm(count, generator=generator)
    down = round(config.shift * height) if config.augmentation != "none" else 0
    right = round(config.shift * width) if config.augmentation != "none" else 0
    rows = torch.randint(-down, down + 1, (count,), generator=generator)
    columns = torch.randint(-right, right + 1, (count,), generator=generator)
    flips = torch.rand(count, generator=generator) < (0.5 if config.augmentation == "flip_and_shift" else 0.0)
    drawn = [tensor.to(images.device) for tensor in (order, rows, columns, flips)]
    for start in range(0, steps * config.batch_size, config.batch_size):
        picked, row, column, flip = (tensor[start : start + config.batch_size] for tensor in drawn)
        batch = images[picked]
        if config.augmentation == "flip_and_shift":
            batch = torch.where(flip.view(-1, 1, 1, 1), batch.flip(3), batch)
        if down or right:
            batch = shift_images(batch, row, column)
        yield batch, labels[picked]


def permuted_labels(labels: Tensor, noise: Noise) -> Tensor:
    """The labels in another order, so that they say nothing of the images, and each class has as many as before.

    Args:
        labels: (N,) integers.
        noise: of the job; its seed decides the order.

    Returns:
        (N,).

    Source: Adebayo et al. 2018, "Sanity checks for saliency maps", Sec. 3.2.
    """
    order = noise.generator("permuted_labels", "").permutation(len(labels))
    return labels[torch.from_numpy(order).to(labels.device)]


def shift_images(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Moves each image down and to the right; what comes in is black.

    Args:
        images: (B, C, H, W), any type.
        rows: (B,) int64, pixels down; negative is up.
        columns: (B,) int64, pixels to the right.

    Returns:
        (B, C, H, W).
    """
    count, _, height, width = images.shape
    device = images.device
    row = torch.arange(height, device=device) - rows.view(-1, 1)
    column = torch.arange(width, device=device) - columns.view(-1, 1)
    inside = ((row >= 0) & (row < height)).view(count, 1, height, 1)
    inside = inside & ((column >= 0) & (column < width)).view(count, 1, 1, width)
    row, column = row.clamp(0, height - 1), column.clamp(0, width - 1)
    sample = torch.arange(count, device=device).view(-1, 1, 1)
    moved = images.permute(0, 2, 3, 1)[sample, row.unsqueeze(2), column.unsqueeze(1)].permute(0, 3, 1, 2)
    return moved * inside


def _check(images: Tensor, labels: Tensor, classes: int) -> None:
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
        raise FatalError(f"training images are {images.dtype} {tuple(images.shape)}, expected uint8 (N, 3, H, W)")
    if labels.shape != (len(images),):
        raise FatalError(f"training labels are {tuple(labels.shape)}, expected ({len(images)},)")
    if len(images) < 2:
        raise FatalError(f"training needs at least two images, got {len(images)}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise FatalError(f"training labels run from {low} to {high}, expected 0 to {classes - 1}")


def _channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel in [0, 1], from exact counts of the 256 pixel values."""
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in range(3):
        counts = torch.bincount(images[:, channel].flatten().int(), minlength=256).cpu().double()
        mean = (counts * values).sum() / counts.sum()
        variance = (counts * (values - mean) ** 2).sum() / counts.sum()
        means.append(mean.item())
        # A channel of one colour has no deviation, and dividing by it would give nothing but NaN.
        deviations.append(max(variance.item() ** 0.5, 1 / 255))
    return means, deviations


@contextmanager
def _reproducible(device: torch.device, seed: int) -> Iterator[None]:
    """Inside the block dropout draws from `seed` and cuDNN repeats itself; both are put back after."""
    if device.type != "cuda":
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield
        return
    with (
        torch.random.fork_rng(devices=[device]),
        torch.cuda.device(device),
        torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=torch.backends.cudnn.allow_tf32
        ),
    ):
        torch.default_generator.manual_seed(seed)
        torch.cuda.manual_seed(seed)
        yield


@torch.no_grad()
def _accuracy(network: nn.Module, normalise: _Normalisation, images: Tensor, labels: Tensor) -> float:
    network.eval()
    correct = torch.zeros((), device=images.device)
    for pixels, targets in zip(torch.split(images, 512), torch.split(labels, 512), strict=True):
        correct += (network(normalise(pixels)).argmax(1) == targets).sum()
    return correct.item() / len(images)

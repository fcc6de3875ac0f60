"""Training small networks: for quick starts without weights, and for remove-and-retrain benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pipeline.contracts import digest
from pipeline.errors import FatalError
from pipeline.models.build import build_network, source_digest
from pipeline.models.config import TrainingConfig
from pipeline.models.device_memory import reused_allocations
from pipeline.models.device_name import device_name
from pipeline.models.processes import ALONE, Processes
from pipeline.models.training_checkpoint import Checkpoint
from pipeline.models.training_data import HeldImages, Images
from pipeline.models.training_run import Epoch, Normalisation, TrainingRun, reproducible, training_precision
from pipeline.models.weights import weights_bytes, weights_metadata
from pipeline.noise import Noise

CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """What training gives.

    Attributes:
        state_dict: parameters and buffers on the CPU, contiguous.
        metadata: architecture, number of classes and normalisation, as stored with the weights.
        accuracy: share of the training images classified correctly at the end, without augmentation; None where it
            was not asked for.
        seconds: wall clock, that before a checkpoint included.
        history: one entry an epoch.
        test_accuracy: share of the test images classified correctly; None without test images.
        device: what the device is called; of several, the first process's.
        devices: how many trained it together.
        precision: of the passes through the network while it was trained: `float32` or `bfloat16`.
    """

    state_dict: dict[str, Tensor]
    metadata: dict[str, str]
    accuracy: float | None
    seconds: float
    history: tuple[Epoch, ...]
    test_accuracy: float | None
    device: str
    devices: int
    precision: str

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
    """Trains a network from scratch on images in memory.

    Args:
        name: see `build_network`.
        images: (N, 3, H, W) uint8; all of them are held on the device.
        labels: (N,) integers in [0, classes).
        classes: number of logits.
        config, mean, std, seed: as for `train_and_test`.
        device: where to train.

    Returns:
        The weights, their metadata, and how training went.

    Raises:
        FatalError: images or labels do not fit, or the loss is not finite.
    """
    held = HeldImages(images, labels, classes, device)
    return train_and_test(name, held, config=config, mean=mean, std=std, seed=seed, training_accuracy=True)


def train_and_test(
    name: str,
    training: Images,
    test: Images | None = None,
    *,
    config: TrainingConfig | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    training_accuracy: bool = False,
    resume: bytes | None = None,
    keep: Callable[[bytes], None] | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    processes: Processes = ALONE,
) -> TrainedNetwork:
    """Trains a network from scratch, and measures it.

    The same arguments give the same weights on the same hardware and number of threads, with and without a stop in
    between. The global random state is left as it was. Accuracies are measured in float32. Several processes, each with
    all images or all shards of them, train one network: each takes its share of every batch, batch norm takes its
    statistics from the whole batch, and the result differs from that of one process by rounding alone, and by what
    dropout draws.

    Args:
        name: see `build_network`.
        training: two images or more; where they are is where training runs.
        test: images on the same device.
        config: default: `TrainingConfig()`.
        mean, std: normalisation, per channel in [0, 1]; default: those of the training images.
        seed: decides initial weights, order, augmentation and dropout.
        training_accuracy: whether to measure the accuracy on the training images, without augmentation.
        resume: what `keep` was given last by a training with these arguments.
        keep: takes what `resume` goes on from, after an epoch; called in the first process.
        checkpoint_seconds: least time between two calls of `keep`.
        processes: those that train this network together; all of them call this with the same arguments.

    Returns:
        The weights, their metadata, and how training went.

    Raises:
        FatalError: there are too few images, the device lacks the precision, or the loss is not finite.
        CheckpointError: `resume` is damaged or of another training. Nothing has been trained; without it, training
            starts anew.
    """
    start = time.perf_counter()
    config = config if config is not None else TrainingConfig()
    device, classes = training.device, training.classes
    if len(training) < 2:
        raise FatalError(f"training needs at least two images, got {len(training)}")
    if test is not None and not (len(test) and test.classes == classes and test.device == device):
        raise FatalError(
            f"{len(test)} test images of {test.classes} classes on {test.device}, expected one or more of {classes} "
            f"classes on {device}"
        )
    if mean is None or std is None:
        measured_mean, measured_std = training.statistics()
        mean = measured_mean if mean is None else mean
        std = measured_std if std is None else std
    mean, std = [float(value) for value in mean], [float(value) for value in std]
    # Where one of the devices lacks bfloat16, all do without.
    rounded = processes.least(training_precision(config, device) is torch.bfloat16)
    precision = torch.bfloat16 if rounded else torch.float32
    # The order of channels in memory that convolutions are fastest in, on CPUs and GPUs (measured: a fifth).
    network = build_network(name, classes, seed=seed).to(device).to(memory_format=torch.channels_last)
    identity = digest(
        [name, source_digest(name, network), classes, mean, std, seed, torch.__version__, device.type],
        {field: getattr(config, field) for field in TrainingConfig.model_fields} | {"precision": str(precision)},
        [len(training), *training.size, training.order.name],
    )
    run = TrainingRun(network, Normalisation(mean, std, device), config, precision, len(training), seed, processes)
    allocations = reused_allocations() if device.type == "cpu" else nullcontext()
    with allocations, reproducible(device, seed + processes.rank):
        earlier = run.restore(Checkpoint.from_bytes(resume, identity)) if resume is not None else 0.0
        _train(run, training, identity, start - earlier, keep, checkpoint_seconds)
        accuracy = run.accuracy(training) if training_accuracy else None
        test_accuracy = run.accuracy(test) if test is not None else None
    return TrainedNetwork(
        {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()},
        weights_metadata(name, classes, mean, std),
        accuracy,
        earlier + time.perf_counter() - start,
        tuple(run.history),
        test_accuracy,
        device_name(device),
        processes.count,
        str(precision).removeprefix("torch."),
    )


def _train(
    run: TrainingRun,
    images: Images,
    identity: str,
    start: float,
    keep: Callable[[bytes], None] | None,
    checkpoint_seconds: float,
) -> None:
    """The epochs that are left. A checkpoint is due once it is in every process."""
    kept = time.perf_counter()
    while len(run.history) < run.config.epochs:
        run.epoch(images)
        now = time.perf_counter()
        if keep is not None and run.processes.least(now - kept >= checkpoint_seconds):
            content = run.checkpoint(identity, now - start).to_bytes()
            run.processes.by_lead(partial(keep, content))
            kept = now


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

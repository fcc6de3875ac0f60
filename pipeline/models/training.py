"""Training small networks: for quick starts without weights, and for remove-and-retrain benchmarks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import astuple, dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.contracts import digest
from pipeline.errors import FatalError
from pipeline.models.augmentation import Augmentation
from pipeline.models.build import build_network, source_digest
from pipeline.models.config import TrainingConfig
from pipeline.models.device_memory import reused_allocations
from pipeline.models.optimization import make_optimizer, one_cycle_rate
from pipeline.models.training_checkpoint import Checkpoint
from pipeline.models.training_data import HeldImages, Images
from pipeline.models.weights import weights_bytes, weights_metadata
from pipeline.noise import Noise

CHECKPOINT_SECONDS = 60.0


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
        accuracy: share of the training images classified correctly at the end, without augmentation; None where it
            was not asked for.
        seconds: wall clock, that before a checkpoint included.
        history: one entry an epoch.
        test_accuracy: share of the test images classified correctly; None without test images.
    """

    state_dict: dict[str, Tensor]
    metadata: dict[str, str]
    accuracy: float | None
    seconds: float
    history: tuple[Epoch, ...]
    test_accuracy: float | None = None

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
) -> TrainedNetwork:
    """Trains a network from scratch, and measures it.

    The same arguments give the same weights on the same hardware and number of threads, with and without a stop in
    between. The global random state is left as it was. Accuracies are measured in float32.

    Args:
        name: see `build_network`.
        training: two images or more; where they are is where training runs.
        test: images on the same device.
        config: default: `TrainingConfig()`.
        mean, std: normalisation, per channel in [0, 1]; default: those of the training images.
        seed: decides initial weights, order, augmentation and dropout.
        training_accuracy: whether to measure the accuracy on the training images, without augmentation.
        resume: what `keep` was given last by a training with these arguments.
        keep: takes what `resume` goes on from, after an epoch.
        checkpoint_seconds: least time between two calls of `keep`.

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
    precision = _precision(config, device)
    if mean is None or std is None:
        measured_mean, measured_std = training.statistics()
        mean, std = mean or measured_mean, std or measured_std
    mean, std = [float(value) for value in mean], [float(value) for value in std]
    # The order of channels in memory that convolutions are fastest in, on CPUs and GPUs (measured: a fifth).
    network = build_network(name, classes, seed=seed).to(device).to(memory_format=torch.channels_last)
    run = _Training(network, _Normalisation(mean, std, device), config, precision, len(training), seed)
    identity = digest(
        [name, source_digest(name, network), classes, mean, std, seed, torch.__version__, device.type],
        {field: getattr(config, field) for field in TrainingConfig.model_fields} | {"precision": str(precision)},
        [len(training), *training.size, training.arrangement],
    )
    with reused_allocations() if device.type == "cpu" else nullcontext(), _reproducible(device, seed):
        earlier = run.restore(Checkpoint.from_bytes(resume, identity)) if resume is not None else 0.0
        kept = time.perf_counter()
        while len(run.history) < config.epochs:
            run.epoch(training)
            now = time.perf_counter()
            if keep is not None and now - kept >= checkpoint_seconds:
                keep(run.checkpoint(identity, earlier + now - start).to_bytes())
                kept = now
        accuracy = run.accuracy(training) if training_accuracy else None
        test_accuracy = run.accuracy(test) if test is not None else None
    return TrainedNetwork(
        {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()},
        weights_metadata(name, classes, mean, std),
        accuracy,
        earlier + time.perf_counter() - start,
        tuple(run.history),
        test_accuracy,
    )


class _Normalisation:
    """uint8 pixels to normalised float32, (x / 255 - mean) / std, in one multiplication and addition."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        self.scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(1, 3, 1, 1)
        self.offset = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(1, 3, 1, 1)

    def __call__(self, pixels: Tensor) -> Tensor:
        return (pixels * self.scale).add_(self.offset).contiguous(memory_format=torch.channels_last)


class _Training:
    """A network on its way, and all that its next epoch depends on beside the global random state."""

    def __init__(
        self,
        network: nn.Module,
        normalise: _Normalisation,
        config: TrainingConfig,
        precision: torch.dtype,
        count: int,
        seed: int,
    ) -> None:
        self.network, self.normalise, self.config, self.precision = network, normalise, config, precision
        self.optimizer = make_optimizer(network, config)
        self.generator = torch.Generator().manual_seed(seed)
        self.history: list[Epoch] = []
        self.steps = -(-count // config.batch_size)
        if count % config.batch_size == 1:
            self.steps -= 1  # batch norm cannot train on one image; another one is left out in each epoch

    def epoch(self, images: Images) -> None:
        """Goes through the images once."""
        config, device, number = self.config, images.device, len(self.history) + 1
        self.network.train()
        batches = images.epoch(config.batch_size, self.generator)
        augmentation = Augmentation.draw(config, len(images), images.size, self.generator, device)
        loss_sum, correct = torch.zeros((), device=device), torch.zeros((), device=device)
        seen = 0
        for step, (pixels, targets) in enumerate(islice(batches, self.steps), (number - 1) * self.steps):
            for group in self.optimizer.param_groups:
                group["lr"] = one_cycle_rate(step, self.steps * config.epochs, config)
            inputs = self.normalise(augmentation(pixels, seen))
            with torch.autocast(device.type, torch.bfloat16, enabled=self.precision is torch.bfloat16):
                logits = self.network(inputs)
                loss = F.cross_entropy(logits, targets, label_smoothing=config.label_smoothing)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
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
        self.history.append(epoch)

    @torch.no_grad()
    def accuracy(self, images: Images) -> float:
        """Share of the images classified correctly, as they are."""
        self.network.eval()
        correct = torch.zeros((), device=images.device)
        # 512 of up to 64 px, and of larger ones as many as have so many pixels.
        for pixels, targets in images.in_order(max(1, min(512, 2**21 // (images.size[0] * images.size[1])))):
            correct += (self.network(self.normalise(pixels)).argmax(1) == targets).sum()
        return correct.item() / len(images)

    def checkpoint(self, identity: str, seconds: float) -> Checkpoint:
        """What `restore` goes on from, inside `_reproducible`."""
        device = self.normalise.scale.device
        return Checkpoint(
            identity,
            tuple((epoch.number, epoch.loss, epoch.accuracy) for epoch in self.history),
            seconds,
            dict(self.network.state_dict()),
            self.optimizer.state_dict(),
            self.generator.get_state(),
            torch.get_rng_state(),
            torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        )

    def restore(self, checkpoint: Checkpoint) -> float:
        """Takes a checkpoint's place, inside `_reproducible`, and gives its seconds."""
        self.network.load_state_dict(checkpoint.network)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.generator.set_state(checkpoint.generator)
        torch.set_rng_state(checkpoint.random)
        if checkpoint.device_random is not None:
            torch.cuda.set_rng_state(checkpoint.device_random, self.normalise.scale.device)
        self.history = [Epoch(*entry) for entry in checkpoint.history]
        return checkpoint.seconds


def _precision(config: TrainingConfig, device: torch.device) -> torch.dtype:
    """float32 or bfloat16."""
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    if config.precision == "auto":
        return torch.bfloat16 if capability >= (8, 0) else torch.float32
    if config.precision == "bfloat16" and (0, 0) < capability < (8, 0):
        raise FatalError(
            f"precision: bfloat16 needs a GPU of compute capability 8.0, {device} has {capability[0]}.{capability[1]}; "
            "take float32 or auto"
        )
    return torch.bfloat16 if config.precision == "bfloat16" else torch.float32


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

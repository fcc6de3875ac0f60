"""One training: a network, and all that its next epoch depends on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import DivergedError, FatalError
from pipeline.models.augmentation import Augmentation
from pipeline.models.config import TrainingConfig
from pipeline.models.optimization import make_optimizer, one_cycle_rate
from pipeline.models.processes import ALONE, Processes
from pipeline.models.shared_norm import shared_batch_norm
from pipeline.models.training_checkpoint import Checkpoint
from pipeline.models.training_data import Images


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass: its number from 1, the mean loss and the accuracy on the images as augmented."""

    number: int
    loss: float
    accuracy: float


class Normalisation:
    """uint8 pixels to normalised float32, (x / 255 - mean) / std, in one multiplication and addition."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        self.scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(1, 3, 1, 1)
        self.offset = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(1, 3, 1, 1)

    def __call__(self, pixels: Tensor) -> Tensor:
        return (pixels * self.scale).add_(self.offset).contiguous(memory_format=torch.channels_last)


class TrainingRun:
    """A network on its way, and all that its next epoch depends on beside the global random state.

    Where several processes train together, each takes its share of every batch, and the gradients are those of the
    whole batch: the network is that of one process, but for rounding and for what dropout draws.
    """

    def __init__(
        self,
        network: nn.Module,
        normalise: Normalisation,
        config: TrainingConfig,
        precision: torch.dtype,
        count: int,
        seed: int,
        processes: Processes = ALONE,
    ) -> None:
        self.network, self.normalise, self.config, self.precision = network, normalise, config, precision
        self.processes, self._replica = processes, processes.replicated(network)
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
        seen, together = 0, self.processes.count
        for step, (pixels, targets) in enumerate(islice(batches, self.steps), (number - 1) * self.steps):
            for group in self.optimizer.param_groups:
                group["lr"] = one_cycle_rate(step, self.steps * config.epochs, config)
            share, whole = self.processes.share(len(targets)), len(targets)
            pixels, targets = pixels[share.rows], targets[share.rows]
            inputs = self.normalise(augmentation(pixels, seen + share.rows.start))
            with (
                torch.autocast(device.type, torch.bfloat16, enabled=self.precision is torch.bfloat16),
                shared_batch_norm(self.processes),
            ):
                logits = self._replica(inputs)
                loss = F.cross_entropy(logits, targets, label_smoothing=config.label_smoothing)
            self.optimizer.zero_grad(set_to_none=True)
            # The mean over processes is taken of the gradients; of unequal shares it has to be the mean over images.
            weight = share.counted * len(targets) / whole * together
            (loss * weight if together > 1 else loss).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            # Summed on the device: reading a number each step would make it wait.
            loss_sum += loss.detach() * (share.counted * len(targets))
            correct.add_((logits.detach().argmax(1) == targets).sum(), alpha=share.counted)
            seen += whole
        loss_all, correct_all = self.processes.summed(torch.stack([loss_sum, correct])).tolist()
        epoch = Epoch(number, loss_all / seen, correct_all / seen)
        if not math.isfinite(epoch.loss):
            raise DivergedError(
                f"training diverged in epoch {number}: the loss is {epoch.loss}; lower learning_rate "
                f"(now {config.learning_rate:g})"
            )
        self.history.append(epoch)

    @torch.no_grad()
    def accuracy(self, images: Images) -> float:
        """Share of the images classified correctly, as they are."""
        self.network.eval()
        correct = torch.zeros((), device=images.device)
        processes = self.processes
        # 512 of up to 64 px, and of larger ones as many as have so many pixels.
        for pixels, targets in images.in_order(max(1, min(512, 2**21 // (images.size[0] * images.size[1])))):
            start, stop = (len(targets) * rank // processes.count for rank in (processes.rank, processes.rank + 1))
            if stop > start:
                logits = self.network(self.normalise(pixels[start:stop]))
                correct += (logits.argmax(1) == targets[start:stop]).sum()
        return processes.summed(correct).item() / len(images)

    def checkpoint(self, identity: str, seconds: float) -> Checkpoint:
        """What `restore` goes on from, inside `reproducible`; all processes call it together."""
        device = self.normalise.scale.device
        return Checkpoint(
            identity,
            tuple((epoch.number, epoch.loss, epoch.accuracy) for epoch in self.history),
            seconds,
            dict(self.network.state_dict()),
            self.optimizer.state_dict(),
            self.generator.get_state(),
            self.processes.collected(torch.get_rng_state()),
            self.processes.collected(torch.cuda.get_rng_state(device)) if device.type == "cuda" else [],
        )

    def restore(self, checkpoint: Checkpoint) -> float:
        """Takes a checkpoint's place, inside `reproducible`, and gives its seconds."""
        self.network.load_state_dict(checkpoint.network)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.generator.set_state(checkpoint.generator)
        rank = self.processes.rank
        if rank < len(checkpoint.random):
            torch.set_rng_state(checkpoint.random[rank])
        if rank < len(checkpoint.device_random):
            torch.cuda.set_rng_state(checkpoint.device_random[rank], self.normalise.scale.device)
        self.history = [Epoch(*entry) for entry in checkpoint.history]
        return checkpoint.seconds


def training_precision(config: TrainingConfig, device: torch.device) -> torch.dtype:
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
def reproducible(device: torch.device, seed: int) -> Iterator[None]:
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

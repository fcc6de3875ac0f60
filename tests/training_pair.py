"""Two processes that train together, for tests: what each of them does, in a module that a fresh process can import."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.errors import FatalError, ShardError
from pipeline.models import (
    HeldImages,
    Images,
    ImageShards,
    Processes,
    StreamedImages,
    TrainedNetwork,
    TrainingConfig,
    train_and_test,
)
from pipeline.models.processes import ALONE
from pipeline.models.shared_norm import shared_batch_norm

SIZE = (16, 16)
# 101 = 6 x 16 + 5, and 49 = 3 x 16 + 1: shares of unequal size, and a batch with less than an image for each.
CONFIG = TrainingConfig(
    epochs=3, batch_size=16, optimizer="sgd", learning_rate=0.05, augmentation="flip_and_shift", label_smoothing=0.1
)


# Batch norm on noise makes more of a rounding error with every step.
GENTLE = CONFIG.model_copy(update={"epochs": 1, "learning_rate": 0.005})


def make_images(count: int = 101) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 3, *SIZE), generator=generator).to(torch.uint8)
    return images, torch.randint(0, 5, (count,), generator=generator)


def shards(
    processes: Processes = ALONE, failing: int | None = None, read: list[int] | None = None, count: int = 101
) -> ImageShards:
    """The images, eight at a time; notes which are read, and fails at one of them."""
    images, labels = make_images(count)

    def give(start: int, stop: int) -> tuple[Tensor, Tensor]:
        if read is not None:
            read.append(start // 8)
        if start // 8 == failing:
            raise ShardError(f"nothing at {start}")
        return images[start:stop], labels[start:stop]

    counts = [min(8, count - start) for start in range(0, count, 8)]
    return ImageShards(give, count, SIZE, 5, 8, counts, buffer=4, processes=processes)


def train(
    name: str, data: Images, processes: Processes = ALONE, config: TrainingConfig = CONFIG, **settings: Any
) -> TrainedNetwork:
    held = HeldImages(*make_images(50), 5)
    return train_and_test(
        name, data, held, config=config, seed=3, training_accuracy=True, processes=processes, **settings
    )


def normalised(inputs: Tensor, processes: Processes) -> dict[str, Tensor]:
    """Outputs, gradients and running statistics of batch norm for this process's part of the inputs."""
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(inputs.shape[1])
    nn.init.uniform_(layer.weight)
    nn.init.uniform_(layer.bias)
    part = inputs[processes.share(len(inputs)).rows].clone().requires_grad_()
    with shared_batch_norm(processes):
        outputs = layer(part)
    (outputs.sin().sum()).backward()
    return {
        "outputs": outputs.detach(), "inputs": part.grad, "weight": layer.weight.grad, "bias": layer.bias.grad,
        "running_mean": layer.running_mean, "running_var": layer.running_var,
    }  # fmt: skip


def answers(processes: Processes) -> dict[str, Any]:
    """What one of two processes finds."""
    found: dict[str, Any] = {"failed": [], "read": []}
    data = HeldImages(*make_images(), 5)
    found["mnist_cnn2"] = train("mnist_cnn2", data, processes)
    found["cifar_cnn4"] = train("cifar_cnn4", data, processes, GENTLE)
    found["few"] = train("mnist_cnn2", HeldImages(*make_images(51), 5), processes, CONFIG.model_copy(
        update={"batch_size": 50}
    ))  # fmt: skip
    found["streamed"] = train("mnist_cnn2", StreamedImages(shards(processes, read=found["read"])), processes)
    kept: list[bytes] = []
    found["kept"] = train("cifar_cnn4", data, processes, keep=kept.append, checkpoint_seconds=0)
    found["checkpoints"] = len(kept)
    checkpoint = processes.by_lead(lambda: kept[0])
    found["resumed"] = train("cifar_cnn4", data, processes, resume=checkpoint)
    found["norm"] = normalised(norm_inputs(), processes)
    for failing in (3, 4):
        try:
            train("mnist_cnn2", StreamedImages(shards(processes, failing)), processes, mean=[0.5] * 3, std=[0.5] * 3)
        except ShardError as error:
            found["failed"].append(str(error))
    try:
        processes.by_lead(fail)
    except FatalError as error:
        found["failed"].append(str(error))
    return found


def norm_inputs() -> Tensor:
    return torch.randn(7, 4, 3, 2, generator=torch.Generator().manual_seed(1)) * 3 + 1


def fail() -> None:
    raise FatalError("no space left")


def _run(rank: int, folder: Path, work: Callable[[Processes], Any]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(work(Processes.of_group("cpu")), folder / f"{rank}.pt")
    dist.destroy_process_group()


def run_pair(folder: Path, work: Callable[[Processes], Any] = answers) -> list[Any]:
    """What `work` gives in each of two processes that know each other."""
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=_run, args=(rank, folder, work)) for rank in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(240)
        assert process.exitcode == 0
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]

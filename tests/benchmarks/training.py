"""Images a second of the training loop against a bare PyTorch loop.

Run: `python tests/benchmarks/training.py --images 2048 --epochs 2`. Generated images of 32 × 32; model, batch,
augmentation, optimiser, schedule and layout in memory are the same on both sides. Both take turns, and the median
decides: on a machine with other work the fastest of either is a matter of luck, and processor seconds say more than
those of the wall clock. Each has a process of its own, since the loop sets how memory is allocated. Building the
network is in both.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models import HeldImages, TrainingConfig, build_network, train_and_test

Side = Callable[[str, Tensor, Tensor, TrainingConfig, str], float]

MODELS = ("cifar_cnn4", "cifar_resnet8")
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def bare_seconds(name: str, images: Tensor, labels: Tensor, config: TrainingConfig, device: str) -> float:
    """What one writes by hand: a pass over shuffled batches, each image shifted and mirrored by slices."""
    start = time.perf_counter()
    network = build_network(name, 10).to(device).to(memory_format=torch.channels_last).train()
    images, labels = images.to(device), labels.to(device)
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=config.learning_rate,
        betas=(config.momentum, 0.999),
        weight_decay=config.weight_decay,
    )
    steps = -(-len(images) // config.batch_size)
    # A rise of no steps at all would be a division by zero in PyTorch.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, steps * config.epochs, pct_start=config.warm_up + 1e-6, cycle_momentum=False
    )
    side = images.shape[-1]
    reach = round(config.shift * side)
    bfloat16 = device != "cpu"
    for _ in range(config.epochs):
        for rows in torch.randperm(len(images)).split(config.batch_size):
            picked = F.pad(images[rows.to(device)], (reach,) * 4)
            batch = torch.empty(len(rows), 3, side, side, dtype=torch.uint8, device=device)
            corners, flips = torch.randint(0, 2 * reach + 1, (len(rows), 2)).tolist(), torch.rand(len(rows)) < 0.5
            for row, ((top, left), flip) in enumerate(zip(corners, flips.tolist(), strict=True)):
                window = picked[row, :, top : top + side, left : left + side]
                batch[row] = window.flip(2) if flip else window
            inputs = ((batch.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16):
                loss = F.cross_entropy(network(inputs), labels[rows.to(device)])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def loop_seconds(name: str, images: Tensor, labels: Tensor, config: TrainingConfig, device: str) -> float:
    """The same by the project's loop; the images are on the device beforehand, as they are for the other."""
    held = HeldImages(images, labels, 10, device)
    return train_and_test(name, held, config=config, mean=MEAN, std=STD).seconds


def turn(side: Side, name: str, count: int, config: TrainingConfig, device: str) -> tuple[float, float]:
    """Wall clock and processor seconds of one training."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator).to(torch.uint8)
    labels = torch.randint(0, 10, (count,), generator=generator)
    start = time.process_time()
    wall = side(name, images, labels, config, device)
    return wall, time.process_time() - start


def main() -> None:
    """Prints images a second of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=768)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    config = TrainingConfig(epochs=arguments.epochs, batch_size=arguments.batch, augmentation="flip_and_shift")
    spawn = multiprocessing.get_context("spawn")
    loop, bare = (ProcessPoolExecutor(1, spawn, torch.set_num_threads, (arguments.threads,)) for _ in range(2))
    with loop, bare:
        for name in arguments.models:
            work = name, arguments.images, config, arguments.device
            warm = name, 3 * arguments.batch, config.model_copy(update={"epochs": 1}), arguments.device
            bare.submit(turn, bare_seconds, *warm).result()
            loop.submit(turn, loop_seconds, *warm).result()
            pairs = [
                (bare.submit(turn, bare_seconds, *work).result(), loop.submit(turn, loop_seconds, *work).result())
                for _ in range(arguments.turns)
            ]
            seen = arguments.images * arguments.epochs
            for what, column in (("wall clock", 0), ("processor", 1)):
                theirs, ours = ([one[column] for one in side] for side in zip(*pairs, strict=True))
                ratios = [other / own for other, own in zip(theirs, ours, strict=True)]
                print(
                    f"{name}, {what}: loop {seen / statistics.median(ours):,.0f} images/s, bare "
                    f"{seen / statistics.median(theirs):,.0f} images/s, ratio {statistics.median(ratios):.2f} "
                    f"(turns {', '.join(f'{ratio:.2f}' for ratio in ratios)})"
                )


if __name__ == "__main__":
    main()

"""Images a second of the training loop against a bare PyTorch loop.

Run: `python tests/benchmarks/training.py --images 2048 --turns 3`. Generated images of 32 × 32; model, batch,
augmentation, optimiser and schedule are the same on both sides. The bare loop runs twice: with tensors as PyTorch lays
them out unasked, and with the channels last, as the project's loop has them. All take turns, and the median decides: on
a machine with other work the fastest is a matter of luck, and processor seconds say more than those of the wall clock.
Each has a process of its own, since the project's loop sets how memory is allocated. Building the network is in all.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models import HeldImages, TrainingConfig, build_network, train_and_test

MODELS = ("cifar_cnn4", "cifar_resnet8")
SIDES = ("loop", "bare", "bare, channels last")
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def bare_loop(
    name: str, images: Tensor, labels: Tensor, config: TrainingConfig, device: str, layout: torch.memory_format
) -> None:
    """What one writes by hand: a pass over shuffled batches, each image shifted and mirrored by slices."""
    network = build_network(name, 10).to(device).to(memory_format=layout).train()
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=config.learning_rate,
        betas=(config.momentum, 0.999),
        weight_decay=config.weight_decay,
    )
    steps = -(-len(images) // config.batch_size) * config.epochs
    # A rise of no steps at all would be a division by zero in PyTorch.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, steps, pct_start=config.warm_up + 1e-6, cycle_momentum=False
    )
    side = images.shape[-1]
    reach = round(config.shift * side)
    for _ in range(config.epochs):
        for rows in torch.randperm(len(images)).split(config.batch_size):
            picked = F.pad(images[rows.to(device)], (reach,) * 4)
            batch = torch.empty(len(rows), 3, side, side, dtype=torch.uint8, device=device)
            corners, flips = torch.randint(0, 2 * reach + 1, (len(rows), 2)).tolist(), torch.rand(len(rows)) < 0.5
            for row, ((top, left), flip) in enumerate(zip(corners, flips.tolist(), strict=True)):
                window = picked[row, :, top : top + side, left : left + side]
                batch[row] = window.flip(2) if flip else window
            inputs = ((batch.float() / 255 - mean) / std).contiguous(memory_format=layout)
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=device != "cpu"):
                loss = F.cross_entropy(network(inputs), labels[rows.to(device)])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def turn(side: str, name: str, count: int, config: TrainingConfig, device: str) -> tuple[float, float]:
    """Seconds of the wall clock and of the processor for one training; the images are on the device beforehand."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator).to(torch.uint8).to(device)
    labels = torch.randint(0, 10, (count,), generator=generator).to(device)
    held = HeldImages(images, labels, 10, device)
    wall, processor = time.perf_counter(), time.process_time()
    if side == "loop":
        train_and_test(name, held, config=config, mean=MEAN, std=STD)
    else:
        layout = torch.channels_last if side.endswith("last") else torch.contiguous_format
        bare_loop(name, images, labels, config, device, layout)
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    """Prints images a second of each, and how they compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=TrainingConfig().batch_size)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    config = TrainingConfig(epochs=arguments.epochs, batch_size=arguments.batch, augmentation="flip_and_shift")
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        workers = {
            side: stack.enter_context(ProcessPoolExecutor(1, spawn, torch.set_num_threads, (arguments.threads,)))
            for side in SIDES
        }
        for name in arguments.models:
            for side, worker in workers.items():
                worker.submit(turn, side, name, 3 * arguments.batch, config, arguments.device).result()
            taken: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
            for _ in range(arguments.turns):
                for side, worker in workers.items():
                    work = worker.submit(turn, side, name, arguments.images, config, arguments.device)
                    taken[side].append(work.result())
            for side in SIDES:
                report(name, side, taken[side], taken["loop"], arguments.images * arguments.epochs)


def report(name: str, side: str, taken: list[tuple[float, float]], loop: list[tuple[float, float]], seen: int) -> None:
    """One line: images a second, and how many times as fast the project's loop is."""
    (wall, processor), (wall_ratio, processor_ratio) = (
        [seen / statistics.median(one[clock] for one in taken) for clock in (0, 1)],
        [statistics.median(one[clock] / own[clock] for one, own in zip(taken, loop, strict=True)) for clock in (0, 1)],
    )
    print(
        f"{name}, {side}: {wall:,.0f} images/s, {processor:,.0f} images a second of processor time; "
        f"the loop is {wall_ratio:.2f} × as fast, by processor time {processor_ratio:.2f} ×"
    )


if __name__ == "__main__":
    main()

"""Seconds for Spearman's correlation and structural similarity of 1,000 pairs of 224 × 224 maps.

Run: `python tests/benchmarks/similarity.py`. The goal is 2 seconds on two cores, ranks of both sides included. Where
other programs share the machine, half of the processor's seconds is the better figure.
"""

from __future__ import annotations

import time

import torch

from pipeline.metrics.similarity import spearman, ssim

PAIRS, SIZE, GOAL = 1000, 224, 2.0


def main() -> None:
    """Prints wall time and processor time of three rounds."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(PAIRS, 1, SIZE, SIZE, generator=generator)
    second = first + torch.randn(PAIRS, 1, SIZE, SIZE, generator=generator)
    for _ in range(3):
        wall, processor = time.perf_counter(), time.process_time()
        spearman(first, second)
        ssim(first, second)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        print(f"{wall:.2f} s on {torch.get_num_threads()} threads, {processor:.2f} s of processors; goal {GOAL} s")


if __name__ == "__main__":
    main()

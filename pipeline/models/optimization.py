"""The optimisers of training, and the one-cycle schedule of their rate."""

from __future__ import annotations

import math

import torch
from torch import nn

from pipeline.models.config import TrainingConfig


def make_optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimiser that the settings name; its rate is set before each step (`one_cycle_rate`)."""
    # All parameters at once: the same numbers as one by one, in less time.
    if config.optimizer == "adamw":
        return torch.optim.AdamW(
            network.parameters(),
            lr=config.learning_rate,
            betas=(config.momentum, 0.999),
            weight_decay=config.weight_decay,
            foreach=True,
        )
    return torch.optim.SGD(
        network.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.momentum > 0,
        foreach=True,
    )


def one_cycle_rate(step: int, steps: int, config: TrainingConfig) -> float:
    """The learning rate of a step: up to its peak and down again, half a cosine each.

    Args:
        step: from 0.
        steps: of the whole training.
        config: peak, and the share of the steps in which the rate rises.

    Source: Smith and Topin 2018, "Super-convergence", in the form and with the defaults of PyTorch's `OneCycleLR`
        (cosine, from a 25th of the peak, down to a 250,000th). Beside it, a rise of no steps begins at the peak.
    """
    steps = max(steps, 2)
    first = config.learning_rate / 25
    risen = config.warm_up * steps - 1
    if step <= risen and risen > 0:
        return _cosine(first, config.learning_rate, step / risen)
    return _cosine(config.learning_rate, first / 1e4, (step - risen) / (steps - 1 - risen))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)

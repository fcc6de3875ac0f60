"""Checkpoints of a training: bytes that it can go on from as if nothing had happened."""

from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

_MAGIC = b"heatline training 2\n"


class CheckpointError(Exception):
    """A checkpoint is damaged, or of another training; the training can be started anew without it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A training after an epoch.

    Attributes:
        identity: what is trained, and how: `digest` of all that decides the result.
        history: number, loss and accuracy of each epoch so far.
        seconds: wall clock so far.
        network, optimizer: their state dicts.
        generator: state of the generator of orders and augmentations.
        random: by process, the state of the CPU's global generator, from which dropout draws there.
        device_random: the same of the CUDA devices; empty on the CPU.
    """

    identity: str
    history: tuple[tuple[int, float, float], ...]
    seconds: float
    network: dict[str, Tensor]
    optimizer: dict[str, Any]
    generator: Tensor
    random: list[Tensor]
    device_random: list[Tensor]

    def to_bytes(self) -> bytes:
        """A line, the SHA-256 of what follows, and a file of PyTorch that `weights_only` loads."""
        buffer = io.BytesIO()
        torch.save({field.name: getattr(self, field.name) for field in fields(self)}, buffer)
        content = buffer.getvalue()
        return _MAGIC + hashlib.sha256(content).digest() + content

    @classmethod
    def from_bytes(cls, content: bytes, identity: str) -> Checkpoint:
        """Read a checkpoint; tensors are on the CPU.

        Args:
            content: what `to_bytes` gave.
            identity: of the training that is to go on.

        Raises:
            CheckpointError: it is damaged, or another training's.
        """
        start = len(_MAGIC)
        found, body = content[start : start + 32], content[start + 32 :]
        # PyTorch itself does not see a byte that has changed in the middle of a tensor.
        if not content.startswith(_MAGIC) or hashlib.sha256(body).digest() != found:
            raise CheckpointError(f"the checkpoint of {len(content)} bytes is damaged: its digest does not fit")
        try:
            values = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
            checkpoint = cls(**values)
        except (pickle.UnpicklingError, RuntimeError, TypeError, ValueError, EOFError) as error:
            raise CheckpointError(f"the checkpoint cannot be read: {str(error).splitlines()[0]}") from error
        if checkpoint.identity != identity:
            raise CheckpointError(f"the checkpoint is of training {checkpoint.identity}, expected {identity}")
        return checkpoint

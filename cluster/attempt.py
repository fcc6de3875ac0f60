"""What a worker is asked, and what came of it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipeline.errors import RetryableError
from pipeline.stages.variant import Split, Unit
from pipeline.stages.worker import Report


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is asked to do with a unit.

    Attributes:
        unit: the unit.
        task: `compute`; `alone`: the same, and decode no image but the unit's own; `look`: decode them and do no
            more; `give_up`: commit the unit's samples as failed.
        reason: why they failed, for `give_up`.
        unreadable: positions whose image ends the process that decodes it, by split; no worker reads them any more.
    """

    unit: Unit
    task: Literal["compute", "alone", "look", "give_up"] = "compute"
    reason: str = ""
    unreadable: Mapping[Split, frozenset[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attempt:
    """The end of one attempt at an order: a report (None after `look`), or the error that it ended with."""

    worker: Hashable
    order: Order
    report: Report | None
    error: BaseException | None


class WorkerDiedError(RetryableError):
    """The worker's process ended, which the unit may have been the cause of.

    Attributes:
        out_of_memory: Ray ended it, since its node's memory was nearly full.
    """

    def __init__(self, message: str, *, out_of_memory: bool = False) -> None:
        super().__init__(message)
        self.out_of_memory = out_of_memory


class WorkerGoneError(RetryableError):
    """The worker went with its node, or cannot be reached: the unit is not to blame."""

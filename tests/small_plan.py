"""A small plan and its events, without a data set: eight samples of which some are predicted and then explained."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.executor import Event
from cluster.queue import UnitQueue
from jobs.plan import Plan
from pipeline.contracts import Cost
from pipeline.data.digits import Digits
from pipeline.part import Part, Receipt
from pipeline.stages.variant import Job, Read, Unit, Variant
from pipeline.stages.worker import Report

PREDICT, ATTRIBUTE = "predictions/p", "maps/a"
RUN = "20260102T030405.000000Z-small"


def small_plan(committed: Mapping[str, list[Part]] | None = None) -> Plan:
    """Units of two samples: predictions, and maps at nine times their passes.

    Args:
        committed: parts that are there already.
    """
    variants = {
        PREDICT: Variant(PREDICT, "predict", "p", 8, 2, Cost(1, 0), (), "net"),
        ATTRIBUTE: Variant(ATTRIBUTE, "attribute", "a", 8, 2, Cost(4, 5), (Read(PREDICT),), "net", method="gradient"),
    }
    there = {path: (committed or {}).get(path, []) for path in variants}
    job = Job("/out", Digits(), "index", 0, {}, variants, 10, run=RUN)
    return Plan(job, there, UnitQueue(variants, there), {})


def done(path: str, start: int, failures: int = 0, worker: int = 0) -> Event:
    """The two samples from `start` were committed; they took 1 s to load, 2 s to compute, 0.5 s to write."""
    unit = Unit(path, start, start + 2)
    receipt = Receipt(unit.start, unit.stop, 2 - failures, failures, 100, 2.0)
    return Event("done", unit, report=Report(unit, receipt, 1.0, 2.0, 0.5), worker=worker)


def started(path: str, start: int, worker: int = 0) -> Event:
    """The two samples from `start` were handed out."""
    return Event("started", Unit(path, start, start + 2), worker=worker)

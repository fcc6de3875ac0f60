"""What a plan will take: passes, time and bytes, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jobs.plan import Plan
from pipeline.contracts import Cost, SharingMethod, digest
from pipeline.stages.tuning import known_pace
from pipeline.stages.variant import STAGES, StageName, Variant
from pipeline.store import Output

ROW_BYTES = 48  # about what ids, labels and targets of a row take, compressed


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """What is left to do of a stage of one model.

    Attributes:
        stage, model: which.
        units, done: units to do, and positions that are done already, over all variants.
        samples: positions to do, over all variants.
        cost: passes, an upper bound where methods or metrics stop early.
        seconds: of one worker; None while the model's pace is not known.
        bytes: to be written.
    """

    stage: StageName
    model: str
    units: int
    done: int
    samples: int
    cost: Cost
    seconds: float | None
    bytes: int


def estimate(plan: Plan, output: Output) -> list[StageEstimate]:
    """What is left to do, one row a stage and model.

    The time is passes × the model's pace as a worker of this output measured it; before a first run it is not
    known. Decoding and writing overlap with computing and are left out, and so is training.
    """
    rows = []
    for model in plan.job.models:
        setting = plan.settings[model]
        for stage in STAGES:
            variants = [v for v in plan.job.variants.values() if v.stage == stage and v.model == model]
            if not variants:
                continue
            pace = (
                known_pace(plan.job.models[model].name, setting.classes, setting.height, setting.width, output)
                if output.exists("tuning")
                else None
            )
            left = {variant.path: plan.queue.positions(variant.path) for variant in variants}
            cost = sum((_times(variant.cost, count) for variant, count in _once(variants, left)), Cost())
            rows.append(
                StageEstimate(
                    stage=stage,
                    model=model,
                    units=sum(plan.queue.count(variant.path) for variant in variants),
                    done=sum(variant.total - left[variant.path] for variant in variants),
                    samples=sum(left.values()),
                    cost=cost,
                    # An input gradient costs about what a forward does, so a pass is half of the measured pair.
                    seconds=(cost.forwards + cost.backwards) * pace.seconds / 2 if pace else None,
                    bytes=sum(
                        _bytes(variant, setting.height * setting.width) * left[variant.path] for variant in variants
                    ),
                )
            )
    return rows


def _once(variants: list[Variant], left: dict[str, int]) -> Iterator[tuple[Variant, int]]:
    """Variants with the positions that cost something: work that methods share is counted with the first of them."""
    counted: dict[str, int] = {}
    for variant in variants:
        count, method = left[variant.path], variant.method_config
        if variant.stage == "attribute" and isinstance(method, SharingMethod):
            work = digest(method.shared_work(), method.target, variant.split)
            counted[work], count = max(counted.get(work, 0), count), max(0, count - counted.get(work, 0))
        yield variant, count


def _times(cost: Cost, count: int) -> Cost:
    return Cost(cost.forwards * count, cost.backwards * count)


def _bytes(variant: Variant, pixels: int) -> int:
    """Bytes that a position of a variant takes on disk."""
    if variant.stage == "segment":
        return ROW_BYTES + pixels // 8  # numbers that run along the rows compress well
    if variant.stage == "attribute":
        return ROW_BYTES + 4 * pixels
    if variant.stage == "rank":
        return ROW_BYTES + (2 if pixels <= 2**16 else 4) * pixels
    if variant.stage == "mask":
        return ROW_BYTES + 3 * pixels
    return ROW_BYTES + 4 * len(variant.axis)

"""What an output holds at the end of a run: failures, gaps, figures, and what is to be said about them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from jobs.plan import Plan
from jobs.spec import JobSpec
from pipeline.errors import RetryableError
from pipeline.noise import Noise
from pipeline.ranges import gaps
from pipeline.retrain.conditions import conditions
from pipeline.retrain.grid import Grid
from pipeline.retrain.summary import benchmarks, retrain_summary
from pipeline.stages.summarise import Summary, summarise
from pipeline.stages.variant import Split
from pipeline.store import Output

_TOLD = 3  # reasons, at most
_PAUSES = (1.0, 5.0, 0.0)  # seconds after looks in which something is missing

Failures = dict[Split, dict[int, str]]
"""By split, the positions of the samples that failed in any stage, with the first stage's reason."""


def check_whole(output: Output, plan: Plan) -> None:
    """Look whether all is committed by now that was not given up.

    Raises:
        RetryableError: another run of the output has taken results away (`--fresh`) that this one counted on.
    """
    given_up: Counter[str] = Counter()
    for unit in (*plan.queue.lost, *plan.queue.stranded):
        given_up[unit.variant] += len(unit)
    variants = plan.job.variants
    for pause in _PAUSES:
        parts = output.together(output.parts, variants)
        gone = sum(max(0, len(gaps(parts[path], one.total)) - given_up[path]) for path, one in variants.items())
        if not gone:
            return
        # A file server may show a folder as it was some seconds ago.
        time.sleep(pause)
    raise RetryableError(f"{gone:,} positions are not committed (any more) although every unit was done")


def failed_samples(output: Output, plan: Plan) -> Failures:
    """The samples that failed; each counts once."""
    failed: Failures = {split: {} for split in split_sizes(plan)}
    over_samples = [v.path for v in plan.job.variants.values() if v.stage not in ("train", "calibrate", "retrain")]
    for path, found in output.together(lambda path: output.failures([path]), over_samples).items():
        variant = plan.job.variants[path]
        for position, reason in zip(found["position"].to_pylist(), found["reason"].to_pylist(), strict=True):
            if position < variant.total:
                failed[variant.split].setdefault(position, reason)
    return failed


def common_reasons(failed: Failures) -> tuple[tuple[str, int], ...]:
    """Why samples failed, the commonest first, each with how many; a few."""
    reasons = Counter(reason for found in failed.values() for reason in found.values())
    return tuple(reasons.most_common(_TOLD))


def split_sizes(plan: Plan) -> dict[Split, int]:
    """Positions of each split that is looked at."""
    sizes: dict[Split, int] = {}
    for variant in plan.job.variants.values():
        if variant.stage not in ("train", "calibrate", "retrain"):
            sizes[variant.split] = max(variant.total, sizes.get(variant.split, 0))
    return sizes


def summaries(output: Output, plan: Plan, noise: Noise, grid: Grid) -> list[Summary]:
    """The figures of the run, those of remove-and-retrain last."""
    found: list[Summary] = []
    for variant in plan.job.variants.values():
        if variant.stage == "evaluate":
            found += summarise(output, variant, noise)
    return found + retrain_summary(benchmarks(grid.cells, ()))


def notices(output: Output, plan: Plan, spec: JobSpec, grid: Grid) -> list[str]:
    """Lines on what was explained and trained."""
    return [*_unexplained(output, plan, spec), *_trained(grid)]


def _unexplained(output: Output, plan: Plan, spec: JobSpec) -> Iterable[str]:
    """A line for each model of which nothing is explained, since the data set's `select` keeps none of its samples."""
    if spec.dataset.select == "all":
        return
    for model in plan.job.models:
        maps = [v for v in plan.job.variants.values() if v.stage == "attribute" and v.model == model]
        # The first part that holds a row answers: there may be very many.
        if maps and not any(receipt.rows for v in maps[:1] for receipt in output.receipts(v.path)):
            yield f"{model}: select: {spec.dataset.select} keeps none of its samples, nothing is explained"


def _trained(grid: Grid) -> list[str]:
    """Lines on what networks were trained with."""
    found = conditions(grid)
    lacking = [
        f"{count:,} images have no order by {method}: masked at random" for method, count in found.unranked.items()
    ]
    return [f"retrain: {line}" for line in (*lacking, *found.sentences)]

"""Images whose decoding ends the process that tries it: found once, and not touched again."""

from __future__ import annotations

from pipeline.stages.variant import Job, Split
from pipeline.store import Output

UNREADABLE = "decoding the image ends the process"
"""The reason by which such a sample is known among the failures."""


def unreadable_positions(output: Output, job: Job, split: Split) -> set[int]:
    """Positions of a split that earlier runs, or other workers, found to be such.

    Every sample is predicted before anything else reads it, so that the failures of the predictions name them all.
    """
    variants = job.variants.items()
    predictions = [path for path, variant in variants if variant.stage == "predict" and variant.split == split]
    failures = output.failures(predictions)
    rows = zip(failures["position"].to_pylist(), failures["reason"].to_pylist(), strict=True)
    return {position for position, reason in rows if reason == UNREADABLE}

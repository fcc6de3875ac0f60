"""From a checked spec to variants and units: what there is to do, what is done, what it will take."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from cluster.code import code_digest
from cluster.profile import Profile
from cluster.queue import UnitQueue
from cluster.shared_queue import SharedQueue
from jobs.check import CheckedJob, LoadIndex
from jobs.layout import Layout
from jobs.spec import JobSpec
from pipeline.claim import Claims
from pipeline.contracts import Setting
from pipeline.data import DatasetConfig, build_index, index_key
from pipeline.part import Part
from pipeline.stages.variant import Job
from pipeline.store import Output


@dataclass(frozen=True)
class Plan:
    """What a job has to do.

    Attributes:
        job: what workers are sent.
        committed: parts that are there already, by variant.
        queue: the units left.
        settings: classes and image size, by model.
        claims: what this run has taken of the work, where it is to be done and not only told.
        fresh: that what is committed is to be taken away before the first unit.
    """

    job: Job
    committed: dict[str, list[Part]]
    queue: UnitQueue
    settings: dict[str, Setting]
    claims: Claims | None = None
    fresh: bool = False


def index_name(config: DatasetConfig) -> str:
    """Where the index of a source lies in an output; changes when the source may have changed."""
    return f"index/{config.source}-{index_key(config)}.arrow"


def cached_index(output: Output, config: DatasetConfig) -> pa.Table:
    """The index of a source, listed once and kept in the output."""
    return output.cached_table(index_name(config), lambda: build_index(config))


def make_plan(
    spec: JobSpec,
    checked: CheckedJob,
    profile: Profile,
    output: Output,
    load_index: LoadIndex,
    claims: Claims | None = None,
    *,
    fresh: bool = False,
) -> Plan:
    """Lay out variants and units, and look up what the output holds of them.

    Args:
        spec, checked: the job.
        profile: where it runs.
        output: where its results are.
        load_index: lists a data set's samples.
        claims: by which the units are shared with other runs of the output; default: they are not to be done.
        fresh: everything is to be done again, whatever is there.
    """
    layout = Layout(spec, checked, profile, load_index)
    variants = {variant.path: variant for variant in layout.variants()}
    committed = {path: [] for path in variants} if fresh else output.together(output.parts, variants)
    training, validation = layout.training, layout.validation
    job = Job(
        output=output.uri,
        dataset=spec.dataset,
        index=index_name(spec.dataset),
        seed=spec.seed,
        models={model.id: model for model in spec.models},
        variants=variants,
        classes=checked.dataset.classes or 1,
        training=training,
        training_index=index_name(training) if training is not None else None,
        retraining=layout.retraining,
        retraining_index=index_name(layout.retraining) if layout.retraining is not None else None,
        validation=validation,
        validation_index=index_name(validation) if validation is not None else None,
        code=code_digest(),
        options=profile.options(),
    )
    if claims is None:
        return Plan(job, committed, UnitQueue(variants, committed), layout.settings, fresh=fresh)
    queue = SharedQueue(variants, committed, claims, lambda paths: output.together(output.parts, paths))
    return Plan(job, committed, queue, layout.settings, claims, fresh)

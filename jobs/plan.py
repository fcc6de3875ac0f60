"""From a checked spec to variants and units: what there is to do, what is done, what it will take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from cluster.code import code_digest
from cluster.profile import Profile
from cluster.queue import UnitQueue, gaps
from jobs.check import CheckedJob, LoadIndex
from jobs.spec import JobSpec
from pipeline.commit import Part
from pipeline.contracts import Cost, Setting, digest
from pipeline.data import Dataset, DatasetConfig, build_index, index_key
from pipeline.models import ModelConfig, build_network
from pipeline.models.build import source_digest
from pipeline.stages.attribute import Attribute
from pipeline.stages.evaluate import Evaluate
from pipeline.stages.predict import Predict
from pipeline.stages.train import Train
from pipeline.stages.variant import FOLDERS, Job, Read, StageName, Variant, folder_name
from pipeline.store import Output

REFERENCE_PIXELS = 224 * 224
LARGEST_UNIT = 2048
LARGEST_UNIT_BYTES = 64 * 2**20
SHARDS = 8  # a small job is still cut into so many units, so that several workers have something to do


@dataclass(frozen=True)
class Plan:
    """What a job has to do.

    Attributes:
        job: what workers are sent.
        committed: parts that are there already, by variant.
        queue: the units left.
        settings: classes and image size, by model.
    """

    job: Job
    committed: dict[str, list[Part]]
    queue: UnitQueue
    settings: dict[str, Setting]

    def left(self, variant: Variant) -> int:
        """Positions of a variant that are not committed."""
        return sum(stop - start for start, stop in gaps(self.committed[variant.path], variant.total))


def index_name(config: DatasetConfig) -> str:
    """Where the index of a source lies in an output; changes when the source may have changed."""
    return f"index/{config.source}-{index_key(config)}.arrow"


def cached_index(output: Output, config: DatasetConfig) -> pa.Table:
    """The index of a source, listed once and kept in the output."""
    return output.cached_table(index_name(config), lambda: build_index(config))


def make_plan(spec: JobSpec, checked: CheckedJob, profile: Profile, output: Output, load_index: LoadIndex) -> Plan:
    """Lay out variants and units, and look up what the output holds of them."""
    settings = {name: model.setting for name, model in checked.models.items()}
    variants: dict[str, Variant] = {}
    predictions: dict[str, Variant] = {}
    training = spec.dataset.training_split() if any(model.weights == "train" for model in spec.models) else None
    trained: dict[str, Variant] = {}
    for model in spec.models:
        if training is not None and model.weights == "train":
            table = load_index(training)
            trained[model.id] = _train(spec, model, Dataset(training, table, spec.seed).fingerprint, settings[model.id])
        predictions[model.id] = _predict(spec, checked, model, trained.get(model.id), profile)
    selected = () if spec.dataset.select != "correct_for_all_models" else tuple(predictions.values())
    for model in spec.models:
        own = predictions[model.id]
        for variant in _explain(spec, checked, own, selected or (own,), profile):
            variants[variant.path] = variant
    for variant in (*trained.values(), *predictions.values()):
        variants[variant.path] = variant
    committed = {path: output.parts(path) for path in variants}
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
        code=code_digest(),
        options=profile.options(),
    )
    return Plan(job, committed, UnitQueue(variants, committed), settings)


def _train(spec: JobSpec, model: ModelConfig, training: str, setting: Setting) -> Variant:
    """The training of a model: one unit."""
    identity = model.model_dump(mode="json", exclude={"id", "weights", "training"})
    code = source_digest(model.name, build_network(model.name, setting.classes)) if ":" in model.name else None
    settings = model.training_settings()
    fingerprint = digest("train", Train.revision, identity, code, settings, training, spec.seed, setting.classes)
    return Variant(
        path=_path("train", fingerprint, model=model.id),
        stage="train",
        fingerprint=fingerprint,
        total=1,
        unit_size=1,
        cost=Cost(),
        reads=(),
        model=model.id,
    )


def _predict(
    spec: JobSpec, checked: CheckedJob, model: ModelConfig, trained: Variant | None, profile: Profile
) -> Variant:
    """The predictions of a model on the clean images."""
    weights = trained.fingerprint if trained else checked.models[model.id].digest
    fingerprint = digest("predict", Predict.revision, weights, checked.dataset.fingerprint)
    cost = Cost(forwards=1)
    total = len(checked.dataset)
    return Variant(
        path=_path("predict", fingerprint, model=model.id),
        stage="predict",
        fingerprint=fingerprint,
        total=total,
        unit_size=_unit_size(cost, checked.models[model.id].setting, total, profile),
        cost=cost,
        reads=(Read(trained.path, whole=True),) if trained else (),
        model=model.id,
        weights_variant=trained.path if trained else None,
        model_digest=None if trained else weights,
    )


def _explain(
    spec: JobSpec, checked: CheckedJob, own: Variant, selecting: tuple[Variant, ...], profile: Profile
) -> Iterable[Variant]:
    """The maps of every method of one model, and the scores of every metric of each."""
    setting = checked.models[own.model].setting
    for method in spec.methods:
        upstream = sorted(variant.fingerprint for variant in {own.path: own, **{v.path: v for v in selecting}}.values())
        fingerprint = digest(
            "attribute",
            Attribute.revision,
            method.config.revision,
            method.config,
            own.fingerprint,
            spec.seed,
            spec.dataset.select,
            upstream if spec.dataset.select != "all" else [],
        )
        cost = method.config.cost(setting)
        maps = Variant(
            path=_path("attribute", fingerprint, model=own.model, method=method.id),
            stage="attribute",
            fingerprint=fingerprint,
            total=own.total,
            unit_size=_unit_size(cost, setting, own.total, profile),
            cost=cost,
            reads=tuple(Read(path) for path in dict.fromkeys([own.path, *(one.path for one in selecting)])),
            model=own.model,
            method=method.id,
            method_config=method.config,
            prediction_variant=own.path,
            weights_variant=own.weights_variant,
            model_digest=own.model_digest,
        )
        yield maps
        for metric in spec.metrics:
            scored = digest("evaluate", Evaluate.revision, metric.config.revision, metric.config, fingerprint)
            cost = metric.config.cost(setting)
            yield Variant(
                path=_path("evaluate", scored, model=own.model, method=method.id, metric=metric.id),
                stage="evaluate",
                fingerprint=scored,
                total=own.total,
                unit_size=_unit_size(cost, setting, own.total, profile),
                cost=cost,
                reads=(Read(maps.path),),
                model=own.model,
                method=method.id,
                metric=metric.id,
                method_config=method.config,
                metric_config=metric.config,
                fractions=tuple(metric.config.curve_fractions(setting)),
                map_variant=maps.path,
                weights_variant=own.weights_variant,
                model_digest=own.model_digest,
            )


def _path(stage: StageName, fingerprint: str, **names: str) -> str:
    """`maps/model=resnet20/method=agi-1f3a9c21`: ids for people, the fingerprint's start for certainty."""
    steps = [f"{key}={folder_name(name)}" for key, name in names.items()]
    return "/".join([FOLDERS[stage], *steps]) + f"-{fingerprint[:8]}"


def _unit_size(cost: Cost, setting: Setting, total: int, profile: Profile) -> int:
    """Positions a unit: a power of two, by the passes that the profile allows and the bytes of its maps."""
    pixels = setting.height * setting.width
    passes = (cost.forwards + cost.backwards) * pixels / REFERENCE_PIXELS
    by_cost = profile.unit_passes / passes if passes else LARGEST_UNIT
    by_bytes = LARGEST_UNIT_BYTES / (4 * pixels)
    by_total = max(16.0, total / SHARDS)
    largest = int(max(1.0, min(by_cost, by_bytes, by_total, LARGEST_UNIT)))
    return 1 << (largest.bit_length() - 1)

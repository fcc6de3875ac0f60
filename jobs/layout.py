"""The variants of a job: which stage with which configuration reads which other."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.profile import Profile
from jobs.check import CheckedJob, LoadIndex
from jobs.spec import JobSpec, NamedMethod, NamedMetric
from pipeline.contracts import Cost, Setting, digest
from pipeline.data import Dataset
from pipeline.metrics import SanityLabels
from pipeline.models import ModelConfig, TrainingConfig, build_network
from pipeline.models.build import source_digest
from pipeline.stages.attribute import Attribute
from pipeline.stages.calibrate import Calibrate
from pipeline.stages.evaluate import Evaluate
from pipeline.stages.predict import Predict
from pipeline.stages.segment import Segment
from pipeline.stages.train import Train
from pipeline.stages.variant import FOLDERS, Read, StageName, Variant, folder_name

REFERENCE_PIXELS = 224 * 224
LARGEST_UNIT = 2048
LARGEST_UNIT_BYTES = 64 * 2**20
SHARDS = 8  # a small job is still cut into so many units, so that several workers have something to do


class Layout:
    """The variants of a job. One that several others read is laid out once, under its path."""

    def __init__(self, spec: JobSpec, checked: CheckedJob, profile: Profile, load_index: LoadIndex) -> None:
        self._spec = spec
        self._dataset = checked.dataset
        self._digests = {name: model.digest for name, model in checked.models.items()}
        self._profile = profile
        self._load_index = load_index
        self.settings = {name: model.setting for name, model in checked.models.items()}
        train = any(model.weights == "train" for model in spec.models)
        train = train or any(metric.config.permutes for metric in spec.metrics)
        self.training = spec.dataset.training_split() if train else None
        calibrate = any(
            calibration is not None
            for calibration in (
                *(method.config.calibration() for method in spec.methods),
                *(metric.config.calibration() for metric in spec.metrics),
            )
        )
        # Methods and metrics are calibrated on images that are not explained, where the data set knows of others.
        self.validation = (spec.dataset.training_split() or spec.dataset) if calibrate else None
        self._opened: Dataset | None = None

    def variants(self) -> Iterator[Variant]:
        """Every variant, those that others read first."""
        trained = {
            model.id: self._train(model)
            for model in self._spec.models
            if self.training is not None and model.weights == "train"
        }
        yield from trained.values()
        predictions = {model.id: self._predict(model, trained.get(model.id)) for model in self._spec.models}
        yield from predictions.values()
        selected = () if self._spec.dataset.select != "correct_for_all_models" else tuple(predictions.values())
        for own in predictions.values():
            for method in self._spec.methods:
                superpixels, calibration = self._segment(method), self._calibrate(method, own)
                yield from (variant for variant in (superpixels, calibration) if variant is not None)
                maps = self._attribute(method, own, selected or (own,), superpixels, calibration)
                yield maps
                for metric in self._spec.metrics:
                    found, permuted = self._calibrate(metric, own), self._permuted_training(metric, own)
                    yield from (variant for variant in (found, permuted) if variant is not None)
                    yield self._evaluate(metric, maps, superpixels, found, permuted)

    def _train(self, model: ModelConfig) -> Variant:
        """The training of a model: one unit."""
        return self._trained(model, model.training_settings())

    def _permuted_training(self, metric: NamedMetric, own: Variant) -> Variant | None:
        """The training of the model's architecture on permuted labels, where a metric asks for it: one unit."""
        if not metric.config.permutes:
            return None
        model = next(model for model in self._spec.models if model.id == own.model)
        given = metric.config.training if isinstance(metric.config, SanityLabels) else None
        return self._trained(model, given or model.training_settings(), permuted=True)

    def _trained(self, model: ModelConfig, settings: TrainingConfig, *, permuted: bool = False) -> Variant:
        if self.training is None:
            raise ValueError("no training split")
        spec, setting = self._spec, self.settings[model.id]
        training = Dataset(self.training, self._load_index(self.training), spec.seed).fingerprint
        identity = model.model_dump(mode="json", exclude={"id", "weights", "training"})
        code = source_digest(model.name, build_network(model.name, setting.classes)) if ":" in model.name else None
        labels = ["permuted"] if permuted else []
        fingerprint = digest(
            "train", Train.revision, identity, code, settings, training, spec.seed, setting.classes, *labels
        )
        names = {"model": model.id, "labels": "permuted"} if permuted else {"model": model.id}
        return Variant(
            path=_path("train", fingerprint, **names),
            stage="train",
            fingerprint=fingerprint,
            total=1,
            unit_size=1,
            cost=Cost(),
            reads=(),
            model=model.id,
            permuted=permuted,
            training=settings,
            classes=setting.classes,
        )

    def _predict(self, model: ModelConfig, trained: Variant | None) -> Variant:
        """The predictions of a model on the clean images."""
        weights = trained.fingerprint if trained else self._digests[model.id]
        fingerprint = digest("predict", Predict.revision, weights, self._dataset.fingerprint)
        cost = Cost(forwards=1)
        total = len(self._dataset)
        return Variant(
            path=_path("predict", fingerprint, model=model.id),
            stage="predict",
            fingerprint=fingerprint,
            total=total,
            unit_size=_unit_size(cost, self.settings[model.id], total, self._profile),
            cost=cost,
            reads=(Read(trained.path, whole=True),) if trained else (),
            model=model.id,
            weights_variant=trained.path if trained else None,
            model_digest=None if trained else weights,
        )

    def _segment(self, method: NamedMethod) -> Variant | None:
        """The superpixels that a method asks for."""
        segmentation = method.config.segmentation()
        if segmentation is None:
            return None
        fingerprint = digest("segment", Segment.revision, segmentation, self._dataset.fingerprint)
        total, model = len(self._dataset), self._spec.models[0].id
        # To divide an image takes about as long as a few passes through a network.
        unit_size = _unit_size(Cost(forwards=4), self.settings[model], total, self._profile)
        return Variant(
            path=_path("segment", fingerprint, superpixels=str(segmentation.count)),
            stage="segment",
            fingerprint=fingerprint,
            total=total,
            unit_size=unit_size,
            cost=Cost(),
            reads=(),
            model=model,
            segmentation=segmentation,
        )

    def _calibrate(self, asking: NamedMethod | NamedMetric, own: Variant) -> Variant | None:
        """The calibration that a method or metric asks for, of one model: one unit."""
        calibration = asking.config.calibration()
        if calibration is None or self.validation is None:
            return None
        if self._opened is None:
            self._opened = Dataset(self.validation, self._load_index(self.validation), self._spec.seed)
        validation = self._opened
        weights = own.reads[0].variant if own.reads else own.model_digest
        fingerprint = digest(
            "calibrate",
            Calibrate.revision,
            calibration.revision,
            calibration,
            weights,
            validation.fingerprint,
            len(validation),
            self._spec.seed,
        )
        each, samples = calibration.cost(self.settings[own.model]), min(calibration.samples, len(validation))
        return Variant(
            path=_path("calibrate", fingerprint, model=own.model, calibration=calibration.name),
            stage="calibrate",
            fingerprint=fingerprint,
            total=1,
            unit_size=1,
            cost=Cost((1 + each.forwards) * samples, each.backwards * samples),
            reads=own.reads,
            model=own.model,
            calibration=calibration,
            weights_variant=own.weights_variant,
            model_digest=own.model_digest,
        )

    def _attribute(
        self,
        method: NamedMethod,
        own: Variant,
        selecting: tuple[Variant, ...],
        superpixels: Variant | None,
        calibration: Variant | None,
    ) -> Variant:
        """The maps of one method of one model."""
        spec, setting = self._spec, self.settings[own.model]
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
            *[variant.fingerprint for variant in (superpixels, calibration) if variant is not None],
        )
        cost = method.config.cost(setting)
        reads = [Read(path) for path in dict.fromkeys([own.path, *(one.path for one in selecting)])]
        reads += [Read(superpixels.path)] if superpixels is not None else []
        reads += [Read(calibration.path, whole=True)] if calibration is not None else []
        return Variant(
            path=_path("attribute", fingerprint, model=own.model, method=method.id),
            stage="attribute",
            fingerprint=fingerprint,
            total=own.total,
            unit_size=_unit_size(cost, setting, own.total, self._profile),
            cost=cost,
            reads=tuple(reads),
            model=own.model,
            method=method.id,
            method_config=method.config,
            prediction_variant=own.path,
            superpixel_variant=superpixels.path if superpixels is not None else None,
            calibration_variant=calibration.path if calibration is not None else None,
            weights_variant=own.weights_variant,
            model_digest=own.model_digest,
        )

    def _evaluate(
        self,
        metric: NamedMetric,
        maps: Variant,
        superpixels: Variant | None,
        found: Variant | None,
        permuted: Variant | None,
    ) -> Variant:
        """One metric's scores of one method's maps.

        Args:
            metric: the metric.
            maps: the maps.
            superpixels: those that the method asked for.
            found: what the metric's calibration finds.
            permuted: the model trained on permuted labels, in whose place the metric asks for it.
        """
        config, setting, total = metric.config, self.settings[maps.model], maps.total
        upstream = [variant for variant in (found, permuted) if variant is not None]
        reads = [Read(maps.path), *(Read(variant.path, whole=True) for variant in upstream)]
        if config.explains:
            # The method runs again, and needs what it needed for the maps.
            reads += [Read(superpixels.path)] if superpixels is not None else []
            reads += [Read(maps.calibration_variant, whole=True)] if maps.calibration_variant is not None else []
        looked_at = total if config.samples is None else min(config.samples, total)
        fingerprint = digest(
            "evaluate",
            Evaluate.revision,
            config.revision,
            config,
            maps.fingerprint,
            *[variant.fingerprint for variant in upstream],
            # Which samples are drawn hangs on how many there are to draw from.
            *([] if config.samples is None else [total]),
            *([] if config.region() is None else [self._dataset.region_fingerprint]),
        )
        cost = config.cost(setting, maps.cost) * (looked_at / total if total else 1)
        return Variant(
            path=_path("evaluate", fingerprint, model=maps.model, method=str(maps.method), metric=metric.id),
            stage="evaluate",
            fingerprint=fingerprint,
            total=total,
            unit_size=_unit_size(cost, setting, total, self._profile),
            cost=cost,
            reads=tuple(reads),
            model=maps.model,
            method=maps.method,
            metric=metric.id,
            method_config=maps.method_config,
            metric_config=config,
            axis=config.curve_axis(setting),
            map_variant=maps.path,
            superpixel_variant=superpixels.path if config.explains and superpixels is not None else None,
            calibration_variant=maps.calibration_variant if config.explains else None,
            metric_calibration_variant=found.path if found is not None else None,
            weights_variant=permuted.path if permuted is not None else maps.weights_variant,
            model_digest=None if permuted is not None else maps.model_digest,
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

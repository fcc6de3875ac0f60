"""The variants of a job: which stage with which configuration reads which other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cluster.profile import Profile
from jobs.check import CheckedJob, LoadIndex
from jobs.retrain_layout import RetrainLayout
from jobs.spec import JobSpec, NamedMethod, NamedMetric
from jobs.split_layout import SplitLayout, unit_size, variant_path
from pipeline.contracts import Cost, digest
from pipeline.data import Dataset
from pipeline.metrics import SanityLabels
from pipeline.models import ModelConfig, TrainingConfig, build_network
from pipeline.models.build import source_digest
from pipeline.stages.calibrate import Calibrate
from pipeline.stages.evaluate import Evaluate
from pipeline.stages.train import Train
from pipeline.stages.variant import Read, Split, Variant


class Layout:
    """The variants of a job. One that several others read is laid out once, under its path."""

    def __init__(self, spec: JobSpec, checked: CheckedJob, profile: Profile, load_index: LoadIndex) -> None:
        self._spec = spec
        self._dataset = checked.dataset
        self._digests = {name: model.digest for name, model in checked.models.items()}
        self._profile = profile
        self._load_index = load_index
        self.settings = {name: model.setting for name, model in checked.models.items()}
        self._explained = self._over("explained", checked.dataset)
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
        self.retraining = None
        if spec.retrain is not None and (split := spec.dataset.training_split()) is not None:
            self.retraining = split.model_copy(update={"sample": spec.retrain.train_limit})

    def _over(self, split: Split, dataset: Dataset) -> SplitLayout:
        return SplitLayout(self._spec, split, dataset, self.settings, self._digests, self._profile)

    def variants(self) -> Iterator[Variant]:
        """Every variant, those that others read first."""
        trained = {
            model.id: self._train(model)
            for model in self._spec.models
            if self.training is not None and model.weights == "train"
        }
        yield from trained.values()
        predictions = {model.id: self._explained.predict(model, trained.get(model.id)) for model in self._spec.models}
        yield from predictions.values()
        selected = () if self._spec.dataset.select != "correct_for_all_models" else tuple(predictions.values())
        for own in predictions.values():
            for method in self._spec.methods:
                *needed, maps = self._explain(method, self._explained, own, selected)
                yield from (*needed, maps)
                superpixels = next((variant for variant in needed if variant.stage == "segment"), None)
                for metric in self._spec.metrics:
                    found, permuted = self._calibrate(metric, own), self._permuted_training(metric, own.model)
                    yield from (variant for variant in (found, permuted) if variant is not None)
                    yield self._evaluate(metric, maps, superpixels, found, permuted)
        yield from self._retrain(predictions, trained)

    def _explain(
        self, method: NamedMethod, over: SplitLayout, own: Variant, selecting: tuple[Variant, ...] = ()
    ) -> Iterator[Variant]:
        """The maps of a method over a split, after what they need."""
        superpixels, calibration = over.segment(method), self._calibrate(method, own)
        yield from (variant for variant in (superpixels, calibration) if variant is not None)
        yield over.attribute(method, own, selecting or (own,), superpixels, calibration)

    def _retrain(self, predictions: Mapping[str, Variant], trained: Mapping[str, Variant]) -> Iterator[Variant]:
        """The remove-and-retrain benchmark, where the job has one."""
        config = self._spec.retrain
        if config is None or self.retraining is None:
            return
        dataset = Dataset(self.retraining, self._load_index(self.retraining), self._spec.seed)
        over = self._over("retraining", dataset)
        model = next(model for model in self._spec.models if model.id == (config.explained or self._spec.models[0].id))
        learned = over.predict(model, trained.get(model.id))
        yield learned
        splits: dict[Split, SplitLayout] = {"retraining": over, "explained": self._explained}
        benchmark = RetrainLayout(self._spec, config, splits, self._explain)
        yield from benchmark.variants({"retraining": learned, "explained": predictions[model.id]})

    def _train(self, model: ModelConfig) -> Variant:
        """The training of a model: one unit."""
        return self._trained(model, model.training_settings())

    def _permuted_training(self, metric: NamedMetric, identifier: str) -> Variant | None:
        """The training of the model's architecture on permuted labels, where a metric asks for it: one unit."""
        if not metric.config.permutes:
            return None
        model = next(model for model in self._spec.models if model.id == identifier)
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
            path=variant_path("train", fingerprint, **names),
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
            path=variant_path("calibrate", fingerprint, model=own.model, calibration=calibration.name),
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
            # How a network is cut into blocks is another's business, whose version may change.
            *([list(config.curve_axis(setting))] if config.by_blocks else []),
        )
        cost = config.cost(setting, maps.cost) * (looked_at / total if total else 1)
        return Variant(
            path=variant_path("evaluate", fingerprint, model=maps.model, method=str(maps.method), metric=metric.id),
            stage="evaluate",
            fingerprint=fingerprint,
            total=total,
            unit_size=unit_size(cost, setting, total, self._profile),
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

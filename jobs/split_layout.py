"""The variants over the samples of one split: predictions, superpixels and maps."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.profile import Profile
from jobs.spec import JobSpec, NamedMethod
from pipeline.contracts import Cost, Setting, digest
from pipeline.data import Dataset
from pipeline.models import ModelConfig
from pipeline.stages.attribute import Attribute
from pipeline.stages.predict import Predict
from pipeline.stages.segment import Segment
from pipeline.stages.statistics import Statistics
from pipeline.stages.variant import FOLDERS, Read, Split, StageName, Variant, folder_name

REFERENCE_PIXELS = 224 * 224
LARGEST_UNIT = 2048
LARGEST_UNIT_BYTES = 64 * 2**20
SHARDS = 8  # a small job is still cut into so many units, so that several workers have something to do


class SplitLayout:
    """Lays out what is found about each sample of a split.

    Attributes:
        split: which.
        dataset: its samples.
    """

    def __init__(
        self,
        spec: JobSpec,
        split: Split,
        dataset: Dataset,
        settings: Mapping[str, Setting],
        digests: Mapping[str, str | None],
        profile: Profile,
    ) -> None:
        """Say what is laid out over.

        Args:
            spec: the job.
            split: which part of the data.
            dataset: its samples.
            settings, digests: classes and image size, and digest of the weights, by model.
            profile: how large units may be.
        """
        self.split: Split = split
        self.dataset = dataset
        self._spec, self.settings, self._digests, self._profile = spec, settings, digests, profile

    def _named(self) -> dict[str, str]:
        """What a folder's name says of the split; the job's own samples go without saying."""
        return {} if self.split == "explained" else {"split": self.split}

    def predict(self, model: ModelConfig, trained: Variant | None) -> Variant:
        """The predictions of a model on the clean images."""
        weights = trained.fingerprint if trained else self._digests[model.id]
        fingerprint = digest("predict", Predict.revision, weights, self.dataset.fingerprint)
        cost = Cost(forwards=1)
        total = len(self.dataset)
        return Variant(
            path=variant_path("predict", fingerprint, model=model.id, **self._named()),
            stage="predict",
            fingerprint=fingerprint,
            total=total,
            unit_size=unit_size(cost, self.settings[model.id], total, self._profile),
            cost=cost,
            reads=(Read(trained.path, whole=True),) if trained else (),
            model=model.id,
            split=self.split,
            weights_variant=trained.path if trained else None,
            model_digest=None if trained else weights,
        )

    def segment(self, method: NamedMethod) -> Variant | None:
        """The superpixels that a method asks for."""
        segmentation = method.config.segmentation()
        if segmentation is None:
            return None
        fingerprint = digest("segment", Segment.revision, segmentation, self.dataset.fingerprint)
        total, model = len(self.dataset), self._spec.models[0].id
        # To divide an image takes about as long as a few passes through a network.
        size = unit_size(Cost(forwards=4), self.settings[model], total, self._profile)
        return Variant(
            path=variant_path("segment", fingerprint, superpixels=str(segmentation.count), **self._named()),
            stage="segment",
            fingerprint=fingerprint,
            total=total,
            unit_size=size,
            cost=Cost(),
            reads=(),
            model=model,
            split=self.split,
            segmentation=segmentation,
        )

    def statistics(self, own: Variant) -> Variant:
        """What is to be known of the images before a network is trained on them.

        Args:
            own: the split's predictions: of the images, they are what is made first, and on the same worker.
        """
        fingerprint = digest("statistics", Statistics.revision, self.dataset.fingerprint)
        return Variant(
            path=variant_path("statistics", fingerprint, split=self.split),
            stage="statistics",
            fingerprint=fingerprint,
            total=own.total,
            unit_size=own.unit_size,
            cost=Cost(),
            reads=(Read(own.path),),
            model=own.model,
            split=self.split,
        )

    def attribute(
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
            path=variant_path("attribute", fingerprint, model=own.model, method=method.id, **self._named()),
            stage="attribute",
            fingerprint=fingerprint,
            total=own.total,
            unit_size=unit_size(cost, setting, own.total, self._profile),
            cost=cost,
            reads=tuple(reads),
            model=own.model,
            method=method.id,
            method_config=method.config,
            split=self.split,
            prediction_variant=own.path,
            superpixel_variant=superpixels.path if superpixels is not None else None,
            calibration_variant=calibration.path if calibration is not None else None,
            weights_variant=own.weights_variant,
            model_digest=own.model_digest,
        )


def variant_path(stage: StageName, fingerprint: str, **names: str) -> str:
    """`maps/model=resnet20/method=agi-1f3a9c21`: ids for people, the fingerprint's start for certainty."""
    steps = [f"{key}={folder_name(name)}" for key, name in names.items()]
    return "/".join([FOLDERS[stage], *steps]) + f"-{fingerprint[:8]}"


def unit_size(cost: Cost, setting: Setting, total: int, profile: Profile) -> int:
    """Positions a unit: a power of two, by the passes that the profile allows and the bytes of its maps."""
    pixels = setting.height * setting.width
    passes = (cost.forwards + cost.backwards) * pixels / REFERENCE_PIXELS
    by_cost = profile.unit_passes / passes if passes else LARGEST_UNIT
    by_bytes = LARGEST_UNIT_BYTES / (4 * pixels)
    by_total = max(16.0, total / SHARDS)
    largest = int(max(1.0, min(by_cost, by_bytes, by_total, LARGEST_UNIT)))
    return 1 << (largest.bit_length() - 1)

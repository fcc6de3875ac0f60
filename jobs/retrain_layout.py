"""The variants of a remove-and-retrain benchmark: maps of both splits, their ranks, and a cell a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from jobs.spec import JobSpec, NamedMethod
from jobs.split_layout import SplitLayout, variant_path
from pipeline.contracts import Cost, digest
from pipeline.methods import Random
from pipeline.models import build_network
from pipeline.models.build import source_digest
from pipeline.retrain import Cell, RetrainConfig
from pipeline.stages.mask import Mask
from pipeline.stages.rank import Rank
from pipeline.stages.retrain import Retrain
from pipeline.stages.variant import Read, Split, Variant

Maps = Mapping[Split, Variant]
Explain = Callable[[NamedMethod, SplitLayout, Variant], Iterator[Variant]]


class RetrainLayout:
    """Lays out a benchmark once the predictions of both splits are."""

    def __init__(
        self, spec: JobSpec, config: RetrainConfig, splits: Mapping[Split, SplitLayout], explain: Explain
    ) -> None:
        """Say what is benchmarked.

        Args:
            spec: the job.
            config: the benchmark.
            splits: where predictions and maps of each split are laid out.
            explain: the maps of a method over a split and what they need, the maps last.
        """
        self._spec, self._config, self._splits, self._explain = spec, config, splits, explain

    @property
    def methods(self) -> list[NamedMethod]:
        """The benchmark's methods; `random` is one where the job does not have it under this name."""
        known = {method.id: method for method in self._spec.methods}
        return [known.get(name) or NamedMethod(id=name, config=Random()) for name in self._config.methods]

    def variants(self, predictions: Mapping[Split, Variant]) -> Iterator[Variant]:
        """Every variant of the benchmark, those that others read first.

        Args:
            predictions: of the explained model, by split.
        """
        statistics: dict[Split, Variant] = {}
        for split, over in self._splits.items():
            statistics[split] = over.statistics(predictions[split])
            yield statistics[split]
        for repeat in range(self._config.repeats):
            yield self._cell(None, 0.0, repeat, {}, statistics)
        for method in self.methods:
            ranks: dict[Split, Variant] = {}
            for split, over in self._splits.items():
                maps: Variant | None = None
                for maps in self._explain(method, over, predictions[split]):
                    yield maps
                if maps is None:
                    raise ValueError(f"{method.id}: no maps were laid out")
                ranks[split] = self._ranks(maps)
                yield ranks[split]
            for fraction in self._config.fractions:
                if self._config.write_masked:
                    yield from (self._mask(method, fraction, one, statistics) for one in ranks.values())
                for repeat in range(self._config.repeats):
                    yield self._cell(method, fraction, repeat, ranks, statistics)

    def _ranks(self, maps: Variant) -> Variant:
        """The ranks of a method's maps."""
        fingerprint = digest("rank", Rank.revision, maps.fingerprint)
        names = {} if maps.split == "explained" else {"split": str(maps.split)}
        return Variant(
            path=variant_path("rank", fingerprint, model=maps.model, method=str(maps.method), **names),
            stage="rank",
            fingerprint=fingerprint,
            total=maps.total,
            unit_size=maps.unit_size,
            cost=Cost(),
            reads=(Read(maps.path),),
            model=maps.model,
            method=maps.method,
            method_config=maps.method_config,
            split=maps.split,
            map_variant=maps.path,
        )

    def _cell_config(self, method: NamedMethod | None, fraction: float, repeat: int) -> Cell:
        config = self._config
        return Cell(
            kind=config.kind,
            fill=config.fill,
            network=config.model,
            method=method.id if method is not None else None,
            fraction=fraction,
            repeat=repeat,
            training=config.training(),
            save_weights=config.save_weights,
            max_unranked_share=config.max_unranked_share,
        )

    def _cell(
        self,
        method: NamedMethod | None,
        fraction: float,
        repeat: int,
        ranks: Mapping[Split, Variant],
        statistics: Mapping[Split, Variant],
    ) -> Variant:
        """One training."""
        cell, model = self._cell_config(method, fraction, repeat), statistics["explained"].model
        data = {split: [over.dataset.fingerprint, len(over.dataset)] for split, over in self._splits.items()}
        classes = self._splits["explained"].settings[model].classes
        code = source_digest(cell.network, build_network(cell.network, classes)) if ":" in cell.network else None
        # What a method or a folder is called does not count, nor, without a method, which pixels would go, nor whether
        # weights are kept (they are a position of their own), nor up to which share of images without ranks it is made.
        unseen = {"method", "save_weights", "max_unranked_share"} | (set() if method else {"kind", "fill"})
        counted = cell.model_dump(mode="json", exclude=unseen)
        fingerprint = digest(
            "retrain",
            Retrain.revision,
            counted,
            code,
            data,
            classes,
            self._spec.seed,
            *[variant.fingerprint for variant in ranks.values()],
        )
        training, tested = (len(self._splits[split].dataset) for split in ("retraining", "explained"))
        seen, positions = cell.training.epochs * training, 2 if cell.save_weights else 1
        names = {"method": method.id, "fraction": f"{fraction:g}"} if method is not None else {"method": "clean"}
        return Variant(
            path=variant_path("retrain", fingerprint, model=model, **names, repeat=str(repeat)),
            stage="retrain",
            fingerprint=fingerprint,
            total=positions,
            unit_size=positions,
            # Of the network that is trained; to train weights costs about what an input gradient does.
            cost=Cost(seen + training + tested, seen) * (1 / positions),
            reads=tuple(Read(variant.path, whole=True) for variant in (*statistics.values(), *ranks.values())),
            model=model,
            method=cell.method,
            cell=cell,
            rank_variants={split: variant.path for split, variant in ranks.items()},
            statistics_variants={split: variant.path for split, variant in statistics.items()},
            classes=classes,
        )

    def _mask(
        self, method: NamedMethod, fraction: float, ranks: Variant, statistics: Mapping[Split, Variant]
    ) -> Variant:
        """The masked images of a split."""
        cell = self._cell_config(method, fraction, 0)
        data = self._splits[ranks.split].dataset.fingerprint
        fill = self._splits["retraining"].dataset
        fingerprint = digest(
            "mask", Mask.revision, cell.kind, cell.fill, fraction, ranks.fingerprint, data, fill.fingerprint, len(fill)
        )
        names = {"model": ranks.model, "method": method.id, "fraction": f"{fraction:g}", "split": str(ranks.split)}
        return Variant(
            path=variant_path("mask", fingerprint, **names),
            stage="mask",
            fingerprint=fingerprint,
            total=ranks.total,
            unit_size=ranks.unit_size,
            cost=Cost(),
            reads=(Read(ranks.path), Read(statistics["retraining"].path, whole=True)),
            model=ranks.model,
            method=method.id,
            split=ranks.split,
            cell=cell,
            rank_variants={ranks.split: ranks.path},
            statistics_variants={"retraining": statistics["retraining"].path},
        )

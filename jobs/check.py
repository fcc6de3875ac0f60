"""The checks of a spec that open data and weights, and run nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from jobs.problem import Place, Problem, SpecError
from jobs.retrain_check import retrain_problems
from jobs.spec import JobSpec
from jobs.split_check import split_problems
from jobs.tolerance import tolerance_trouble
from pipeline.contracts import Setting
from pipeline.data import Dataset, DatasetConfig
from pipeline.errors import FatalError
from pipeline.models import (
    Classifier,
    ModelConfig,
    build_network,
    check_classifier,
    load_classifier,
    read_weights,
)
from pipeline.models.block import network_parts
from pipeline.retrain.summary import ACCURACY
from pipeline.store import open_output

LoadIndex = Callable[[DatasetConfig], pa.Table]


@dataclass(frozen=True, slots=True)
class CheckedModel:
    """What is known of a model before the job runs.

    Attributes:
        digest: of its weights; None where they are still to be trained.
        setting: number of its classes, and height and width of the images.
    """

    digest: str | None
    setting: Setting


@dataclass(frozen=True, slots=True)
class CheckedJob:
    """A spec whose data and models are there and fit each other.

    Attributes:
        spec: the spec.
        index: every sample of the source.
        dataset: the selected samples.
        models: by id, in the order of the spec.
    """

    spec: JobSpec
    index: pa.Table
    dataset: Dataset
    models: dict[str, CheckedModel]


def check(spec: JobSpec, load_index: LoadIndex) -> CheckedJob:
    """Opens the data set and every model, one at a time, and asks each method whether it fits.

    Args:
        spec: the spec.
        load_index: lists a data set's samples: `build_index`, or one that remembers.

    Raises:
        SpecError: with every problem found.
    """
    problems = _output_problems(spec)
    opened = _open_dataset(spec, load_index, problems)
    if opened is not None and not opened[1].classes:
        problems += _label_problems(spec)
    if opened is not None:
        problems += _region_problems(spec, opened[1])
    problems += _permutation_problems(spec, opened[1] if opened else None)
    if spec.retrain is not None:
        dataset = opened[1] if opened else None
        problems += retrain_problems(spec, dataset, _training_trouble(spec, dataset, "retrain"), load_index)
    problems += _tolerance_problems(spec)
    models = {
        model.id: checked
        for index, model in enumerate(spec.models)
        if (checked := _check_model(spec, index, model, opened[1] if opened else None, problems)) is not None
    }
    if opened is not None:
        classes = {name: model.setting.classes for name, model in models.items()}
        problems += split_problems(spec, opened[1], classes, load_index)
    if problems or opened is None:
        raise SpecError(list(dict.fromkeys(problems)))
    index, dataset = opened
    return CheckedJob(spec, index, dataset, models)


def _output_problems(spec: JobSpec) -> list[Problem]:
    """A local output that belongs to something else; one that is not there yet is made when the job runs."""
    folder = Path(spec.output)
    if "://" in spec.output or not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return []
    try:
        open_output(spec.output)
    except FatalError as error:
        return [spec.problem(("output",), str(error))]
    return []


def _open_dataset(spec: JobSpec, load_index: LoadIndex, problems: list[Problem]) -> tuple[pa.Table, Dataset] | None:
    try:
        index = load_index(spec.dataset)
        dataset = Dataset(spec.dataset, index, spec.seed)
    except FatalError as error:
        problems.append(_dataset_problem(spec, error))
        return None
    if not len(dataset):
        problems.append(spec.problem(("dataset",), "no samples are left; select more of them"))
        return None
    return index, dataset


def _label_problems(spec: JobSpec) -> list[Problem]:
    """What a spec asks for that takes labels, on a data set that has none."""
    problems = []
    if spec.dataset.select != "all":
        message = f"select: {spec.dataset.select} needs labels, and the data set has none; take all"
        problems.append(spec.problem(("dataset", "select"), message))
    for index, method in enumerate(spec.methods):
        if method.config.target == "label":
            message = "target: label needs labels, and the data set has none; take predicted or second"
            problems.append(spec.problem(("methods", index, "config", "target"), message))
    return problems


def _region_problems(spec: JobSpec, dataset: Dataset) -> list[Problem]:
    """Metrics of where things are, on a data set that does not say so."""
    problems = []
    for index, metric in enumerate(spec.metrics):
        wanted = metric.config.region()
        if wanted is None or wanted in dataset.regions:
            continue
        mend = "take source: shapes, or parquet with a mask_column or boxes_column"
        known = f"known: {', '.join(dataset.regions)}" if dataset.regions else f"it knows of none; {mend}"
        message = f"{metric.config.name}: the data set has no region '{wanted}'; {known}"
        problems.append(spec.problem(("metrics", index, "config", "region_name"), message))
    return problems


def _permutation_problems(spec: JobSpec, dataset: Dataset | None) -> list[Problem]:
    """Metrics that have models trained on permuted labels, on a data set that cannot be trained on."""
    return [
        spec.problem(("metrics", index), trouble)
        for index, metric in enumerate(spec.metrics)
        if metric.config.permutes and (trouble := _training_trouble(spec, dataset, metric.config.name))
    ]


def _tolerance_problems(spec: JobSpec) -> list[Problem]:
    """Tolerances of metrics, or of measures, that the job does not have."""
    measures = {metric.id: metric.config.measures for metric in spec.metrics}
    if spec.retrain is not None:
        measures[spec.retrain.kind] = (ACCURACY,)
    return [
        spec.problem(("compare", "tolerance", name), trouble)
        for name in spec.compare.tolerance
        if (trouble := tolerance_trouble(name, measures, "no metric of this job is called"))
    ]


def _dataset_problem(spec: JobSpec, error: FatalError) -> Problem:
    """The room names the key at fault in its message: `dataset.path '…' does not exist`."""
    message = str(error)
    named = re.search(r"\bdataset\.(\w+)\b", message)
    if named is None or named[1] not in type(spec.dataset).model_fields:
        return spec.problem(("dataset",), message.removeprefix("dataset: "))
    return spec.problem(("dataset", named[1]), message.removeprefix(named[0]).lstrip(": "))


def _check_model(
    spec: JobSpec, number: int, config: ModelConfig, dataset: Dataset | None, problems: list[Problem]
) -> CheckedModel | None:
    """Loads or builds one model and asks everything of it; without a data set, only whether it loads."""
    place: Place = ("models", number)
    before = len(problems)
    if config.weights == "train" and (trouble := _training_trouble(spec, dataset)):
        problems.append(spec.problem((*place, "weights"), trouble))
    try:
        model = _load(config, dataset, spec.seed)
    except FatalError as error:
        key = "name" if str(error).startswith("model '") else "weights"
        problems.append(spec.problem((*place, key), str(error)))
        return None
    if dataset is None or model is None:
        return None
    if trouble := _class_trouble(config, model.classes, dataset):
        problems.append(spec.problem((*place, "classes"), trouble))
    try:
        check_classifier(model, dataset.height, dataset.width, model.classes)
        setting = _setting(spec, model, dataset)
    except FatalError as error:
        problems.append(spec.problem((*place, "name"), str(error)))
        return None
    for index, method in enumerate(spec.methods):
        if trouble := method.config.objection(model, setting):
            who = f" (model '{config.id}')" if len(spec.models) > 1 else ""
            problems.append(spec.problem(("methods", index), f"{trouble}{who}"))
    return None if len(problems) > before else CheckedModel(_digest(config, model), setting)


def _setting(spec: JobSpec, model: Classifier, dataset: Dataset) -> Setting:
    """What costs depend on; the model's blocks where a metric goes by them.

    Raises:
        FatalError: the network cannot be cut into blocks.
    """
    setting = Setting(model.classes, dataset.height, dataset.width)
    if not any(metric.config.by_blocks for metric in spec.metrics):
        return setting
    parts = network_parts(model.network, dataset.height, dataset.width)
    return replace(setting, blocks=parts.names("block"), layers=parts.names("layer"))


def _load(config: ModelConfig, dataset: Dataset | None, seed: int) -> Classifier | None:
    """The model, with initial weights where it is to be trained; None where its class count is not known."""
    classes = config.classes or (dataset.classes if dataset is not None else 0)
    path = config.weights_path()
    if dataset is None and not classes and path is not None:
        read_weights(path)
        return None
    if config.weights == "train":
        return Classifier(build_network(config.name, classes or 1), classes=classes or 1)
    return load_classifier(config, classes=classes or 1, seed=seed)


def _digest(config: ModelConfig, model: Classifier) -> str | None:
    return None if config.weights == "train" else model.digest


def _training_trouble(spec: JobSpec, dataset: Dataset | None, asking: str = "weights: train") -> str | None:
    """Why no model can be trained for this data set, or None."""
    if dataset is not None and not dataset.classes:
        return f"{asking} needs labels, and the data set has none"
    split = spec.dataset.training_split()
    if split is None:
        keys = ", ".join(f"dataset.{key}" for key in spec.dataset.paths if key.startswith("train"))
        return f"{asking} needs a training split{f'; set {keys}' if keys else ''}"
    try:
        split.state()
    except FatalError as error:
        return f"{asking} needs the training split: {str(error).replace('dataset.path', 'dataset.train_path')}"
    return None


def _class_trouble(config: ModelConfig, classes: int, dataset: Dataset) -> str | None:
    """Why a model with this many logits does not fit the labels, or None."""
    if not dataset.classes or classes == dataset.classes:
        return None
    if classes < dataset.classes:
        return (
            f"the model has {classes:,} classes, the data set {dataset.classes:,}: "
            f"labels up to {dataset.classes - 1} are past its logits"
        )
    if dataset.class_names is None:
        # The count is only the largest label that occurs; who writes down the model's says that the labels fit.
        if config.classes is not None:
            return None
        return (
            f"the model has {classes:,} classes, the data set's labels go to {dataset.classes - 1}; "
            f"if the labels mean the model's first classes, say classes: {classes} here"
        )
    return (
        f"the model has {classes:,} classes, the data set {dataset.classes:,}: "
        "their labels do not mean the same; take a model trained on these classes"
    )

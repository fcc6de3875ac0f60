"""The checks of a remove-and-retrain benchmark."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from jobs.problem import Problem, hint
from jobs.spec import JobSpec
from pipeline.data import Dataset, DatasetConfig, index_key
from pipeline.errors import FatalError
from pipeline.models import build_network

LoadIndex = Callable[[DatasetConfig], pa.Table]
IMPLICIT = "random"
"""The arm that need not be a method of the job."""


def retrain_problems(
    spec: JobSpec, dataset: Dataset | None, training_trouble: str | None, load_index: LoadIndex
) -> list[Problem]:
    """What is wrong with the spec's `retrain`.

    Args:
        spec: the spec.
        dataset: the images that the networks are tested on; None where they could not be opened.
        training_trouble: why there is nothing to train on, or None.
        load_index: lists a data set's samples.
    """
    config = spec.retrain
    if config is None:
        return []
    problems = []
    if training_trouble is not None:
        problems.append(spec.problem(("retrain",), training_trouble))
    elif dataset is not None and _trains_on_its_own_samples(spec):
        message = "networks would be tested on the images that they are trained on; let dataset be the test split"
        problems.append(spec.problem(("retrain",), message))
    elif config.train_limit is not None:
        problems += _limit_problems(spec, config.train_limit, load_index)
    if spec.dataset.select != "all":
        message = f"retrain needs maps of every image, and select: {spec.dataset.select} leaves some out; take all"
        problems.append(spec.problem(("dataset", "select"), message))
    known = [method.id for method in spec.methods]
    for number, name in enumerate(config.methods):
        if name not in (*known, IMPLICIT):
            message = f"no method of this job is called '{name}'{hint(name, [*known, IMPLICIT])}"
            problems.append(spec.problem(("retrain", "methods", number), message))
        elif name in config.methods[:number]:
            problems.append(spec.problem(("retrain", "methods", number), f"'{name}' is there twice"))
    problems += [
        spec.problem(
            ("methods", number, "config", "target"),
            f"'{method.id}' explains the label, which the masks of the test images would give away; take predicted",
        )
        for number, method in enumerate(spec.methods)
        if method.id in config.methods and method.config.target == "label"
    ]
    models = [model.id for model in spec.models]
    if config.explained is not None and config.explained not in models:
        message = f"no model of this job is called '{config.explained}'{hint(config.explained, models)}"
        problems.append(spec.problem(("retrain", "explained"), message))
    try:
        build_network(config.model, max(dataset.classes if dataset is not None else 0, 1))
    except FatalError as error:
        problems.append(spec.problem(("retrain", "model"), str(error)))
    return problems


def _limit_problems(spec: JobSpec, limit: int, load_index: LoadIndex) -> list[Problem]:
    """A training split with fewer images than are to be drawn from it."""
    split = spec.dataset.training_split()
    if split is None:
        return []
    try:
        there = len(Dataset(split, load_index(split), spec.seed))
    except FatalError:
        return []  # what is wrong with the split is said once, of the data set
    if limit <= there:
        return []
    return [spec.problem(("retrain", "train_limit"), f"the training split has {there:,} images, fewer than {limit:,}")]


def _trains_on_its_own_samples(spec: JobSpec) -> bool:
    """Whether the data set and its training split are one list of samples, whatever is selected of either."""
    split = spec.dataset.training_split()
    return split is not None and index_key(split) == index_key(spec.dataset)

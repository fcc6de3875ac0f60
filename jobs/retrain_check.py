"""The checks of a remove-and-retrain benchmark."""

from __future__ import annotations

from jobs.problem import Problem, hint
from jobs.spec import JobSpec
from pipeline.data import Dataset
from pipeline.errors import FatalError
from pipeline.models import build_network

IMPLICIT = "random"
"""The arm that need not be a method of the job."""


def retrain_problems(spec: JobSpec, dataset: Dataset | None, training_trouble: str | None) -> list[Problem]:
    """What is wrong with the spec's `retrain`.

    Args:
        spec: the spec.
        dataset: the images that the networks are tested on; None where they could not be opened.
        training_trouble: why there is nothing to train on, or None.
    """
    config = spec.retrain
    if config is None:
        return []
    problems = []
    if training_trouble is not None:
        problems.append(spec.problem(("retrain",), training_trouble))
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
    models = [model.id for model in spec.models]
    if config.explained is not None and config.explained not in models:
        message = f"no model of this job is called '{config.explained}'{hint(config.explained, models)}"
        problems.append(spec.problem(("retrain", "explained"), message))
    try:
        build_network(config.model, max(dataset.classes if dataset is not None else 0, 1))
    except FatalError as error:
        problems.append(spec.problem(("retrain", "model"), str(error)))
    return problems

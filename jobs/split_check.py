"""The check that a data set and the split that networks are trained on are of one kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import zip_longest

import pyarrow as pa

from jobs.problem import Place, Problem
from jobs.spec import JobSpec
from pipeline.data import Dataset, DatasetConfig
from pipeline.errors import FatalError

LoadIndex = Callable[[DatasetConfig], pa.Table]


def split_problems(spec: JobSpec, dataset: Dataset, classes: Mapping[str, int], load_index: LoadIndex) -> list[Problem]:
    """What keeps a network that is trained on the training split from being tested on the data set.

    Args:
        spec: the spec; without anything to be trained there are no problems.
        dataset: the images that are explained.
        classes: logits of each model, by id, as far as they are known.
        load_index: lists a data set's samples.
    """
    retrained = [] if spec.retrain is None else [spec.retrain.explained or spec.models[0].id]
    trained = [model.id for model in spec.models if model.weights == "train"]
    permuted = [model.id for model in spec.models] if any(one.config.permutes for one in spec.metrics) else []
    networks = list(dict.fromkeys([*retrained, *trained, *permuted]))
    split = spec.dataset.training_split()
    if not networks or split is None:
        return []
    place: Place = ("dataset", "train_path") if "train_path" in spec.dataset.paths else ("dataset",)
    try:
        split.state()
    except FatalError:
        return []  # not there: what is to be trained on it says so
    try:
        training = Dataset(split, load_index(split), spec.seed)
    except FatalError as error:
        return [spec.problem(place, f"the training split: {str(error).replace('dataset.path', 'dataset.train_path')}")]
    messages = [_size_trouble(dataset, training), _name_trouble(dataset, training)]
    if not any(messages):
        messages += [_label_trouble(training, name, classes[name]) for name in networks if name in classes]
    return [spec.problem(place, message) for message in messages if message]


def _size_trouble(dataset: Dataset, training: Dataset) -> str:
    own, other = (f"{one.height} × {one.width}" for one in (dataset, training))
    if own == other:
        return ""
    return f"the training split's images are {other} pixels, the data set's {own}; set dataset.resize and dataset.crop"


def _name_trouble(dataset: Dataset, training: Dataset) -> str:
    """Labels that are one class here and another there."""
    if dataset.class_names is None or training.class_names is None or dataset.class_names == training.class_names:
        return ""
    pairs = zip_longest(training.class_names, dataset.class_names)
    number, (there, here) = next((number, pair) for number, pair in enumerate(pairs) if pair[0] != pair[1])
    return (
        f"class {number} is {_named(there)} in the training split and {_named(here)} in the data set "
        f"({training.classes:,} classes there, {dataset.classes:,} here); the labels of both must mean the same"
    )


def _named(name: str | None) -> str:
    return "nothing" if name is None else f"'{name}'"


def _label_trouble(training: Dataset, model: str, classes: int) -> str:
    if training.classes <= classes:
        return ""
    return (
        f"the training split's labels go to {training.classes - 1}, past the {classes:,} classes of '{model}'; "
        f"if they mean the same, say classes: {training.classes} with the model"
    )

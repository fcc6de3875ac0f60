"""One sample of a run: its image, prediction, maps and scores."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data import Dataset
from pipeline.errors import FatalError
from pipeline.plain_text import plain_line
from pipeline.report.gallery import class_name
from pipeline.report.record import EXPLAINED, RunRecord, read_record
from pipeline.report.stored import maps_at, rows_at
from pipeline.store import Output

# Comparing one name with a million ids would take minutes.
_MOST_COMPARED = 20_000


@dataclass(frozen=True, slots=True)
class SampleScore:
    """One measure of one method's map of the sample; `value` is None where the metric has none for it."""

    method: str
    metric: str
    measure: str
    value: float | None


@dataclass(frozen=True, slots=True)
class SampleModel:
    """What one model and the methods say of the sample.

    Attributes:
        model: its id.
        predicted: the class, by name where known; None where no prediction is committed.
        probability: of that class, in [0, 1].
        correct: whether it is the label; None without a label.
        maps: by method, the random control last; (H, W) float32, as stored.
        scores: in the same order.
    """

    model: str
    predicted: str | None
    probability: float | None
    correct: bool | None
    maps: Mapping[str, NDArray[np.float32]]
    scores: tuple[SampleScore, ...]


@dataclass(frozen=True, slots=True)
class SampleView:
    """A sample as a run saw it.

    Attributes:
        id: its name.
        position: its number in the data set.
        label: its class, by name where known; None without a label.
        image: (3, H, W) uint8, RGB.
        models: one a model.
    """

    id: str
    position: int
    label: str | None
    image: NDArray[np.uint8]
    models: tuple[SampleModel, ...]


def view_sample(
    output: Output, run: str | None = None, *, dataset: Dataset, sample: str, model: str | None = None
) -> SampleView:
    """Everything that a run holds of one sample.

    Args:
        output: where the run is.
        run: one of `output.runs()`; default: the latest.
        dataset: the run's images.
        sample: the sample's id.
        model: only this model; default: all.

    Raises:
        FatalError: no such sample or model, its image cannot be read, or it has no maps; with the reason.
    """
    record = read_record(output, run)
    if model is not None and model not in record.models:
        raise FatalError(f"no model '{model}' in run {record.run}{_close(model, record.models)}")
    ids = dataset.ids(0, len(dataset))
    if sample not in ids:
        # An id with control characters is asked for as the list of ids shows it.
        sample = next((one for one in ids if plain_line(one) == sample), sample)
    if sample not in ids:
        raise FatalError(f"no sample '{sample}' among the run's {len(ids):,}{_close(sample, ids)}")
    position = ids.index(sample)
    shard = dataset.load([position])
    if shard.failures:
        raise FatalError(f"sample '{sample}' has no image: {shard.failures[0].reason}")
    names = record.class_names or dataset.class_names
    models = [model] if model is not None else record.models
    views = tuple(_model_view(output, record, one, position, names) for one in models)
    if not any(view.maps for view in views):
        raise FatalError(f"sample '{sample}' has no maps in run {record.run}: {_why_none(output, record, position)}")
    label = int(shard.labels[0])
    return SampleView(sample, position, None if label < 0 else class_name(label, names), shard.images[0].numpy(), views)


def _model_view(
    output: Output, record: RunRecord, model: str, position: int, names: Sequence[str] | None
) -> SampleModel:
    order = {method: place for place, method in enumerate(record.methods)}
    mine = sorted(
        (one for one in record.variants if (one.model, one.split) == (model, EXPLAINED) and position < one.total),
        key=lambda one: order.get(one.method or "", 0),
    )
    prediction: dict[str, Any] = {}
    maps, scores = {}, []
    for one in mine:
        if one.stage == "predict":
            prediction = next(iter(rows_at(output, one.path, [position]).to_pylist()), {})
        elif one.stage == "attribute" and one.method is not None:
            if found := maps_at(output, one.path, [position]):
                maps[one.method] = found[position]
        elif one.stage == "evaluate":
            for row in rows_at(output, one.path, [position], ["position", "measure", "value"]).to_pylist():
                scores.append(SampleScore(str(one.method), str(one.metric), row["measure"], row["value"]))
    return SampleModel(
        model=model,
        predicted=class_name(prediction["predicted"], names) if prediction else None,
        probability=prediction.get("probability"),
        correct=prediction.get("correct"),
        maps=maps,
        scores=tuple(scores),
    )


def _why_none(output: Output, record: RunRecord, position: int) -> str:
    for row in output.failures(one.path for one in record.variants if one.stage != "train").to_pylist():
        if row["position"] == position:
            return f"it failed in {row['stage']}: {row['reason']}"
    if record.dataset.get("select", "all") != "all":
        return f"the spec explains only samples with select: {record.dataset['select']}"
    return "they are not computed yet; run the job again"


def _close(name: str, candidates: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, list(islice(candidates, _MOST_COMPARED)), n=3)
    return f"; did you mean {', '.join(repr(one) for one in near)}?" if near else ""

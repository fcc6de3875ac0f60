"""An output as a run leaves it, written without running anything."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from pipeline.commit import constant_column
from pipeline.data import Dataset, DatasetConfig, ImageFolder, build_index
from pipeline.noise import Noise
from pipeline.part import Failed
from pipeline.stages.column import tensor_array
from pipeline.stages.evaluate import SCHEMA as SCORES
from pipeline.stages.predict import SCHEMA as PREDICTIONS
from pipeline.stages.summarise import Summary
from pipeline.stages.variant import folder_name
from pipeline.store import Output, open_output

RUN = "20260102T030405.000000Z-synthetic"
METHODS = ("random", "gradient", "agi")
METRICS = {"deletion": ("auc", False), "insertion": ("auc", True), "mar": ("mar", False)}
Score = Callable[[str, str, int], float | None]
"""The score of a method's map by a metric, at a position."""
PART = 3
"""Samples a part, so that a few samples make several parts."""


def image_folder(folder: Path, names: Mapping[str, Sequence[str]], size: int = 16) -> ImageFolder:
    """Noise images, file names by class name; the folder as a data set."""
    for label, files in names.items():
        (folder / label).mkdir(parents=True)
        for file in files:
            pixels = Noise(1).generator("image", f"{label}/{file}").integers(0, 256, (size, size, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / file, "PNG")
    return ImageFolder(path=str(folder))


def write_run(
    folder: Path,
    config: DatasetConfig,
    *,
    models: Sequence[str] = ("net",),
    methods: Sequence[str] = METHODS,
    metrics: Mapping[str, tuple[str, bool]] = METRICS,
    score: Score | None = None,
    summary: Sequence[Summary] | None = None,
    failed: Mapping[int, str] | None = None,
    mapped: int | None = None,
    run: str = RUN,
    **changes: object,
) -> tuple[Output, Dataset]:
    """Write predictions, maps, scores and a record.

    Args:
        folder: the output.
        config: the images; all of them are predicted.
        models, methods: ids.
        metrics: by id, the measure and whether higher is better.
        score: gives the scores; default: 0.1 × position for every method, null for the last sample.
        summary: figures of the record; default: `default_summary`, whatever the scores are.
        failed: reasons by position, of samples whose maps failed.
        mapped: how many samples have maps and scores; default: all.
        run: name of the record.
        changes: keys of the record that are to be otherwise; None takes a key out.

    Returns:
        The output and its data set.
    """
    output = open_output(folder, create=True)
    index = "index/images.arrow"
    dataset = Dataset(config, output.cached_table(index, lambda: build_index(config)), 0)
    variants = []
    for model in models:
        variants.append(_entry("predict", model, None, None, len(dataset)))
        _commit_predictions(output, variants[-1], dataset)
        for method in methods:
            variants.append(_entry("attribute", model, method, None, len(dataset)))
            _commit_maps(output, variants[-1], dataset, failed or {}, mapped)
            for metric, (measure, _) in metrics.items():
                variants.append(_entry("evaluate", model, method, metric, len(dataset)))
                _commit_scores(output, variants[-1], measure, dataset, failed or {}, mapped, score)
    record = {
        "format": 1,
        "name": "synthetic",
        "run": run,
        "status": "done",
        "started": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T03:05:17+00:00",
        "seconds": 72.0,
        "seed": 0,
        "spec": {"version": 1, "name": "synthetic", "report": {"samples": 4}},
        "dataset": config.model_dump(mode="json"),
        "index": index,
        "dataset_fingerprint": dataset.fingerprint,
        "class_names": list(dataset.class_names or ()),
        "samples": len(dataset),
        "versions": {"heatline": "0.1.0"},
        "profile": {"executor": "local"},
        "variants": variants,
        "units": {"done": 9, "reused": 0, "lost": 0},
        "failures": len(failed or {}),
        "lost": [],
        "timings": [
            {**one, "samples": len(dataset), "seconds": 0.5, "forwards": 20, "backwards": 3}
            for one in variants
            if one["stage"] != "predict"
        ],
        "summary": [one.as_dict() for one in (default_summary(models, methods) if summary is None else summary)],
        **changes,
    }
    kept = {key: value for key, value in record.items() if value is not None}
    output.write_bytes(f"runs/{run}.json", json.dumps(kept).encode())
    return output, dataset


def figures(
    method: str, mean: float, low: float, high: float, *, metric: str = "deletion", model: str = "net", n: int = 40
) -> Summary:
    """Figures of one method, with a curve that falls or rises."""
    measure, higher = METRICS[metric]
    curve = () if metric == "mar" else (0.1, mean, 0.9) if higher else (0.9, mean, 0.1)
    axis = (0.0, 0.5, 1.0) if curve else ()
    return Summary(model, method, metric, measure, higher, n, 0, mean, low, high, axis, curve)


def default_summary(models: Sequence[str], methods: Sequence[str]) -> list[Summary]:
    """A figure for each; later methods are a little better."""
    found = []
    for model in models:
        for place, method in enumerate(methods):
            for metric, (_, higher) in METRICS.items():
                mean = 0.5 + (0.1 if higher else -0.1) * place
                found.append(figures(method, mean, mean - 0.02, mean + 0.02, metric=metric, model=model))
    return found


def stored_map(model: str, method: str, position: int, height: int, width: int) -> np.ndarray:
    """The map that `write_run` stores, (H, W) float32."""
    return Noise(0).normal(f"{model}/{method}", [str(position)], (height, width))[0].numpy()


def _entry(stage: str, model: str, method: str | None, metric: str | None, total: int) -> dict[str, Any]:
    folders = {"predict": "predictions", "attribute": "maps", "evaluate": "scores"}
    parts = [f"model={folder_name(model)}"]
    parts += [f"method={folder_name(method)}"] if method else []
    parts += [f"metric={folder_name(metric)}"] if metric else []
    return {
        "path": "/".join([folders[stage], *parts]) + "-0123abcd",
        "stage": stage,
        "model": model,
        "method": method,
        "metric": metric,
        "total": total,
        "fingerprint": "0123abcd",
    }


def _commit_predictions(output: Output, entry: Mapping[str, Any], dataset: Dataset) -> None:
    """Even positions are right, the others predict the next class."""
    count = len(dataset)
    labels = dataset.labels(0, count).numpy()
    positions = np.arange(count)
    predicted = np.where(positions % 2 == 0, labels, (labels + 1) % max(dataset.classes, 2))
    probability = np.full(count, 0.75, np.float32)
    columns = [positions, dataset.ids(0, count), labels, predicted, labels, probability, predicted == labels]
    table = pa.table([pa.array(column) for column in columns], schema=PREDICTIONS)
    output.commit(entry["path"], 0, count, table, [], dataset.ids(0, count))


def _commit_maps(
    output: Output, entry: Mapping[str, Any], dataset: Dataset, failed: Mapping[int, str], mapped: int | None
) -> None:
    model, method = entry["model"], entry["method"]
    output.describe(entry["path"], {"method_config": {"name": method}})
    total = len(dataset) if mapped is None else mapped
    for start in range(0, total, PART):
        positions = range(start, min(start + PART, total))
        kept = [position for position in positions if position not in failed]
        ids = dataset.ids(start, positions.stop)
        maps = [stored_map(model, method, one, dataset.height, dataset.width) for one in kept]
        stacked = torch.from_numpy(np.array(maps, np.float32).reshape(-1, 1, dataset.height, dataset.width))
        table = pa.table(
            {
                "position": pa.array(kept, pa.int64()),
                "id": pa.array([ids[one - start] for one in kept], pa.string()),
                "label": pa.array([0] * len(kept), pa.int64()),
                "target": pa.array([0] * len(kept), pa.int64()),
                "model": constant_column(model, len(kept)),
                "method": constant_column(method, len(kept)),
                "map": tensor_array(stacked),
            }
        )
        gone = [Failed(one, ids[one - start], failed[one]) for one in positions if one in failed]
        output.commit(entry["path"], start, positions.stop, table, gone, ids)


def _commit_scores(
    output: Output,
    entry: Mapping[str, Any],
    measure: str,
    dataset: Dataset,
    failed: Mapping[int, str],
    mapped: int | None,
    score: Score | None,
) -> None:
    total = len(dataset) if mapped is None else mapped
    kept = [position for position in range(total) if position not in failed]

    def value(position: int) -> float | None:
        if score is not None:
            return score(entry["method"], entry["metric"], position)
        return None if position == total - 1 else 0.1 * position

    ids = dataset.ids(0, total)
    rows = [
        {
            "position": position,
            "id": ids[position],
            "label": 0,
            "target": 0,
            "model": entry["model"],
            "method": entry["method"],
            "metric": entry["metric"],
            "measure": measure,
            "value": value(position),
            "curve": [0.9, 0.5, 0.1],
        }
        for position in kept
    ]
    output.describe(entry["path"], {"metric_config": {"name": entry["metric"]}})
    output.commit(entry["path"], 0, total, pa.Table.from_pylist(rows, schema=SCORES), [], [ids[one] for one in kept])

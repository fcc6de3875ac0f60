"""Cells and ranks of a remove-and-retrain benchmark as a run leaves them, put beside a synthetic run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
from synthetic_output import RUN, stored_map

from pipeline.data import Dataset
from pipeline.reduction import pixel_ranks
from pipeline.report.record import read_record
from pipeline.retrain.grid import read_grid
from pipeline.retrain.summary import benchmarks, retrain_summary
from pipeline.stages.column import tensor_array
from pipeline.stages.retrain import SCHEMA as ROWS
from pipeline.store import Output

Accuracy = Callable[[str | None, float, int], float | None]
"""By method (None: the clean arm), fraction and repeat; None where the cell is not trained."""
FILL = (120, 130, 140)


def add_retraining(
    output: Output,
    dataset: Dataset,
    accuracy: Accuracy,
    *,
    methods: Sequence[str],
    fractions: Sequence[float] = (0.25, 0.5, 0.75),
    repeats: int = 2,
    kind: str = "roar",
    fill: str = "mean",
    model: str = "net",
    network: str = "cifar_cnn4",
    test_images: int = 400,
    ranked: bool = True,
    row_kind: str | None = None,
    summarised: bool = True,
    row: Callable[[str | None], Mapping[str, object]] = lambda method: {},
) -> Output:
    """Commit ranks and cells, and put them, with their summary, into the record of `write_run`.

    Args:
        output, dataset: of `write_run`.
        accuracy: of each cell.
        methods, fractions, repeats, kind, fill, model, network: what is benchmarked.
        test_images: how many each cell was tested on.
        ranked: whether ranks are committed; they are of the maps that `write_run` stores.
        row_kind: what the rows say of their kind; default: what the record says.
        summarised: whether the record has the benchmark's figures.
        row: further columns of a cell's row, by its method.
    """
    record = output.run(RUN)
    for number, method in enumerate(methods):
        for split in ("explained", "retraining"):
            path = f"ranks/model={model}/method={number}/split={split}-0123abcd"
            entry = {"path": path, "stage": "rank", "model": model, "method": method, "metric": None, "cell": None}
            record["variants"].append({**entry, "split": split, "total": len(dataset)})
            if ranked:
                _commit_ranks(output, path, dataset, model, method)
    arms: list[tuple[str | None, float]] = [(None, 0.0)]
    arms += [(method, fraction) for method in methods for fraction in fractions]
    for place, (method, fraction) in enumerate(arms):
        for repeat in range(repeats):
            cell = {"kind": kind, "fill": fill, "network": network, "method": method, "fraction": fraction}
            cell |= {"repeat": repeat, "training": {"epochs": 3}, "save_weights": False}
            path = f"retrain/model={model}/arm={place}/repeat={repeat}-0123abcd"
            entry = {"path": path, "stage": "retrain", "model": model, "method": method, "metric": None}
            record["variants"].append({**entry, "split": "explained", "total": 1, "cell": cell})
            found = accuracy(method, fraction, repeat)
            if found is None:
                continue
            columns = {
                **cell,
                "position": 0,
                "id": f"{place}/{repeat}",
                "model": model,
                "kind": row_kind or kind,
                "accuracy": found,
                "train_accuracy": 1.0,
                "train_images": 1000,
                "test_images": test_images,
                "seconds": 1.5,
                "history": [{"number": 1, "loss": 0.5, "accuracy": 0.75}],
                "left_out": 0,
                "fill": FILL if method else None,
                **row(method),
            }
            output.commit(path, 0, 1, pa.Table.from_pylist([columns], schema=ROWS), [], [f"{place}/{repeat}"])
    output.write_bytes(f"runs/{RUN}.json", json.dumps(record).encode())
    if summarised:
        found_all = benchmarks(read_grid(output, read_record(output, RUN).variants).cells, ())
        record["summary"] += [one.as_dict() for one in retrain_summary(found_all)]
        output.write_bytes(f"runs/{RUN}.json", json.dumps(record).encode())
    return output


def _commit_ranks(output: Output, path: str, dataset: Dataset, model: str, method: str) -> None:
    count, size = len(dataset), (dataset.height, dataset.width)
    maps = np.stack([stored_map(model, method, position, *size) for position in range(count)])
    ranks = pixel_ranks(torch.from_numpy(maps)[:, None])[:, 0].to(torch.uint16)
    columns = {
        "position": np.arange(count),
        "id": pa.array(dataset.ids(0, count), pa.string()),
        "ranks": tensor_array(ranks),
    }
    output.commit(path, 0, count, pa.table(columns), [], dataset.ids(0, count))

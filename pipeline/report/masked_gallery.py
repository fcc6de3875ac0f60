"""A few test images as the retrained networks saw them: masked by each method at each share."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.data import Dataset
from pipeline.errors import FatalError
from pipeline.report.gallery import class_name, data_uri, shown_positions
from pipeline.report.heatmap import SHOWN_AT_LEAST, as_picture
from pipeline.report.record import RunRecord
from pipeline.report.stored import committed_positions, rows_at
from pipeline.retrain.config import RetrainKind
from pipeline.retrain.grid import Grid
from pipeline.retrain.masking import masked
from pipeline.retrain.summary import Benchmark
from pipeline.store import Output

SAMPLES = 2
_SIDE = 112  # of large images, in pixels


@dataclass(frozen=True, slots=True)
class MaskedRow:
    """A method's masked images, one a share; None where it has no ranks of the image."""

    method: str
    uris: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class MaskedSample:
    """An image with what its masks leave.

    Attributes:
        id: its name.
        label: its class, by name where known; None without a label.
        uri: the image, unmasked.
        pixels: whether it is so small that its pixels are to be shown as squares.
        width, height: of every picture, in pixels.
        rows: the methods, random last.
    """

    id: str
    label: str | None
    uri: str
    pixels: bool
    width: int
    height: int
    rows: tuple[MaskedRow, ...]


def masked_gallery(
    output: Output, record: RunRecord, dataset: Dataset, one: Benchmark, grid: Grid
) -> list[MaskedSample]:
    """Images evenly spaced over those that every method has ranks of.

    Args:
        output: where the ranks are.
        record: the run.
        dataset: the images that the networks were tested on.
        one: the benchmark.
        grid: its cells.

    Returns:
        Up to `SAMPLES` images; empty where no ranks are committed.

    Raises:
        FatalError: what takes a pixel's place is not known, or the images cannot be read.
        RetryableError: the images cannot be read now.
    """
    order = sorted((area.method for area in one.areas), key=lambda method: method == one.control)
    ranked = {str(entry.method): entry for entry in record.of_stage("rank") if entry.model == one.model}
    methods = [method for method in order if method in ranked]
    totals = {method: min(ranked[method].total, len(dataset)) for method in methods}
    positions = shown_positions(
        [committed_positions(output, ranked[method].path, totals[method]) for method in methods], SAMPLES
    )
    if not positions:
        return []
    fill = _fill(record, grid)
    shard = dataset.load(positions)
    ranks = {method: _ranks_at(output, ranked[method].path, shard.positions) for method in methods}
    names = record.class_names or dataset.class_names
    found = []
    for image, label, identifier, position in zip(
        shard.images, shard.labels.tolist(), shard.ids, shard.positions, strict=True
    ):
        picture = _picture(image)
        pixels = min(image.shape[1:]) < SHOWN_AT_LEAST // 2
        rows = []
        for method in methods:
            own = ranks[method].get(position)
            fits = own is not None and own.shape == image.shape[1:]
            masks = _masked(image, own, one, fill) if own is not None and fits else []
            rows.append(MaskedRow(method, tuple(_uri(mask, pixels) for mask in masks) or (None,) * len(one.fractions)))
        found.append(
            MaskedSample(
                id=identifier,
                label=None if label < 0 else class_name(label, names),
                uri=_uri(image, pixels),
                pixels=pixels,
                width=picture.width,
                height=picture.height,
                rows=tuple(rows),
            )
        )
    return found


def _fill(record: RunRecord, grid: Grid) -> Tensor:
    """(3,) uint8, from a cell of the run."""
    cells = [entry.cell for entry in record.variants if entry.stage == "retrain" and entry.cell]
    if all(cell.fill == "black" for cell in cells):
        return torch.zeros(3, dtype=torch.uint8)
    masking = grid.rows.filter(grid.rows["method"].is_valid())["fill"].drop_null()
    if not len(masking):
        raise FatalError("no trained network says yet which colour took the place of pixels")
    return torch.tensor(masking[0].as_py(), dtype=torch.uint8)


def _ranks_at(output: Output, variant: str, positions: Sequence[int]) -> dict[int, NDArray[np.int32]]:
    table = rows_at(output, variant, positions, ["position", "ranks"])
    if not table.num_rows:
        return {}
    ranks = table["ranks"].combine_chunks().to_numpy_ndarray().astype(np.int32)
    return {position: ranks[row] for row, position in enumerate(table["position"].to_pylist())}


def _masked(image: Tensor, ranks: NDArray[np.int32], one: Benchmark, fill: Tensor) -> list[Tensor]:
    """The image at each share."""
    kind = cast(RetrainKind, one.kind)
    images, order = image[None], torch.from_numpy(ranks)[None]
    return [masked(images, order, fraction, kind, fill)[0] for fraction in one.fractions]


def _picture(image: Tensor) -> Image.Image:
    """As it is, or shrunk where it is large."""
    picture = as_picture(image.numpy())
    if max(picture.size) > SHOWN_AT_LEAST:
        picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    return picture


def _uri(image: Tensor, pixels: bool) -> str:
    """Small images keep every pixel: what is left of them is what is to be seen."""
    picture = _picture(image)
    if not pixels:
        return data_uri(picture, pixels=False)
    sink = io.BytesIO()
    picture.save(sink, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(sink.getvalue()).decode()}"

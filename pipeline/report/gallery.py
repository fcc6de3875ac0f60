"""The gallery: images of the data set beside the maps of every method, as pictures inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data import Dataset
from pipeline.report.heatmap import SHOWN_AT_LEAST, as_picture, enlarged, overlay
from pipeline.report.record import RunRecord, VariantEntry
from pipeline.report.stored import committed_positions, maps_at, rows_at
from pipeline.store import Output

# A picture of 224 × 224 takes up to 24 kB in the page (noise does), so that this many take 5 MB; where there are
# more they are made smaller, and the page stays one that a browser opens at once and a mail server takes.
_FULL_SIZE = 200
_LARGEST_SIDE, _SMALLEST_SIDE = 224, 96
_QUALITY = 78


@dataclass(frozen=True, slots=True)
class Heatmap:
    """One method's picture of a sample; `uri` is None where no map is committed."""

    method: str
    uri: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one model says of a sample.

    Attributes:
        model: its id.
        predicted: the class, by name where known; None where no prediction is committed.
        probability: of that class, in [0, 1].
        correct: whether it is the label; None without a label.
        heatmaps: one a method, the control last.
    """

    model: str
    predicted: str | None
    probability: float | None
    correct: bool | None
    heatmaps: tuple[Heatmap, ...]


@dataclass(frozen=True, slots=True)
class GalleryRow:
    """A sample with its explanations.

    Attributes:
        id: its name.
        label: its class, by name where known; None without a label.
        uri: the image.
        pixels: whether it was enlarged by repeating pixels.
        width, height: of every picture of the row, in pixels.
        explanations: one a model.
    """

    id: str
    label: str | None
    uri: str
    pixels: bool
    width: int
    height: int
    explanations: tuple[Explanation, ...]


def gallery(output: Output, record: RunRecord, dataset: Dataset, samples: int) -> list[GalleryRow]:
    """Images evenly spaced over those that have a map of every method, right and wrong predictions alike.

    Args:
        output: where the run is.
        record: the run.
        dataset: its images.
        samples: how many images, at most.

    Returns:
        The rows in the data set's order; empty where no maps are committed.

    Raises:
        FatalError, RetryableError: the images cannot be read.
    """
    order = {method: place for place, method in enumerate(record.methods)}
    variants = sorted(record.of_stage("attribute"), key=lambda one: order.get(one.method or "", 0))
    positions = shown_positions(
        [committed_positions(output, one.path, min(one.total, len(dataset))) for one in variants], samples
    )
    if not positions:
        return []
    shard = dataset.load(positions)
    maps = {(one.model, one.method): maps_at(output, one.path, shard.positions) for one in variants}
    predictions = {
        one.model: {row["position"]: row for row in rows_at(output, one.path, shard.positions).to_pylist()}
        for one in record.of_stage("predict")
    }
    side = _side(len(shard) * (1 + len(variants)))
    names = record.class_names or dataset.class_names
    rows = []
    for image, label, identifier, position in zip(
        shard.images.numpy(), shard.labels.tolist(), shard.ids, shard.positions, strict=True
    ):
        picture = _shown(as_picture(image), side)
        rows.append(
            GalleryRow(
                id=identifier,
                label=None if label < 0 else class_name(label, names),
                uri=data_uri(picture, pixels=_small(image)),
                pixels=_small(image),
                width=picture.width,
                height=picture.height,
                explanations=tuple(
                    _explanation(
                        image,
                        model,
                        variants,
                        predictions.get(model, {}).get(position),
                        maps,
                        position,
                        names,
                        side,
                    )
                    for model in record.models
                ),
            )
        )
    return rows


def shown_positions(committed: Sequence[NDArray[np.int64]], samples: int) -> list[int]:
    """Positions to show: evenly spaced over those that every method has a map of.

    Methods without any map yet are left out; where the others have no position in common, those of any count.

    Args:
        committed: for each method and model, the positions that have a map.
        samples: how many, at most.

    Returns:
        Ascending positions without repetition.
    """
    there = [positions for positions in committed if len(positions)]
    if not there or samples < 1:
        return []
    common = reduce(np.intersect1d, there)
    candidates = common if len(common) else reduce(np.union1d, there)
    count = min(samples, len(candidates))
    # The middles of equal stretches, so that neither the first nor the last class is always shown.
    chosen = (np.arange(count) * 2 + 1) * len(candidates) // (2 * count)
    return [int(position) for position in candidates[chosen]]


def class_name(number: int, names: Sequence[str] | None) -> str:
    """A class by its name, or by its number where it has none."""
    return names[number] if names and 0 <= number < len(names) else f"class {number}"


def data_uri(picture: Image.Image, *, pixels: bool) -> str:
    """A picture as a `data:` URI.

    Args:
        picture: what is shown.
        pixels: keep every pixel as it is (PNG); otherwise JPEG, a tenth of the size for photographs.
    """
    sink = io.BytesIO()
    if pixels:
        # A palette of 256 colours halves the size, and no eye tells the difference in 32 × 32 pixels.
        picture.quantize(256, dither=Image.Dither.NONE).save(sink, "PNG", optimize=True)
    else:
        picture.save(sink, "JPEG", quality=_QUALITY, optimize=True)
    kind = "png" if pixels else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(sink.getvalue()).decode()}"


def _explanation(
    image: NDArray[np.uint8],
    model: str,
    variants: Sequence[VariantEntry],
    prediction: Mapping[str, Any] | None,
    maps: Mapping[tuple[str, str | None], Mapping[int, NDArray[np.float32]]],
    position: int,
    names: Sequence[str] | None,
    side: int,
) -> Explanation:
    heatmaps = []
    for one in variants:
        if one.model == model and one.method is not None:
            attribution = maps[model, one.method].get(position)
            uri = None
            if attribution is not None and attribution.shape == image.shape[1:]:
                uri = data_uri(_shown(overlay(image, attribution), side), pixels=_small(image))
            heatmaps.append(Heatmap(one.method, uri))
    return Explanation(
        model=model,
        predicted=None if prediction is None else class_name(prediction["predicted"], names),
        probability=None if prediction is None else prediction["probability"],
        correct=None if prediction is None else prediction["correct"],
        heatmaps=tuple(heatmaps),
    )


def _side(pictures: int) -> int:
    """Longest side of a picture such that all of them stay within the page's size."""
    scale = min(1.0, (_FULL_SIZE / max(pictures, 1)) ** 0.5)
    return max(_SMALLEST_SIDE, int(_LARGEST_SIDE * scale))


def _small(image: NDArray[np.uint8]) -> bool:
    return bool(min(image.shape[1:]) < SHOWN_AT_LEAST // 2)


def _shown(picture: Image.Image, side: int) -> Image.Image:
    """Enlarged where it is small, shrunk to `side` where it is large."""
    picture = enlarged(picture)
    if max(picture.size) > max(side, SHOWN_AT_LEAST):
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture

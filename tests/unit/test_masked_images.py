"""What a network of the benchmark sees: images masked by ranks, and at random where a method has none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from synthetic_output import image_folder

from pipeline.contracts import Batch
from pipeline.data import Dataset, build_index
from pipeline.errors import ShardError
from pipeline.methods import Random
from pipeline.models import ALONE, TrainingConfig, build_network
from pipeline.models.classifier import Classifier
from pipeline.noise import Noise
from pipeline.reduction import pixel_ranks
from pipeline.retrain import Cell, masked
from pipeline.stages.column import tensor_array
from pipeline.stages.image_cache import ImageCache
from pipeline.stages.image_statistics import ChannelStatistics
from pipeline.stages.masked_images import MaskedImages
from pipeline.stages.rank import Mapped, Rank, count_unranked, stored_ranks
from pipeline.stages.retrain import Retrain
from pipeline.stages.variant import Unit, Variant
from pipeline.store import Output, open_output

SIZE, COUNT = 16, 8
NOISE = Noise(3)
GREY = torch.tensor([10, 20, 30], dtype=torch.uint8)
CELL = Cell(
    kind="roar",
    fill="mean",
    network="cifar_cnn4",
    method="a",
    fraction=0.25,
    repeat=0,
    training=TrainingConfig(epochs=1, augmentation="none", batch_size=4),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    names = {"cat": [f"{number}.png" for number in range(4)], "dog": [f"{number}.png" for number in range(4)]}
    config = image_folder(tmp_path_factory.mktemp("images") / "images", names, size=SIZE)
    return Dataset(config, build_index(config), 0)


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return open_output(tmp_path / "out", create=True)


def variant(stage: Any, **more: Any) -> Variant:
    return Variant(f"{stage}/a", stage, "f", COUNT, COUNT, SimpleNamespace(), (), "net", **more)  # type: ignore[arg-type]


def commit_ranks(output: Output, dataset: Dataset, maps: torch.Tensor, positions: tuple[int, ...]) -> None:
    """What the stage makes of maps, committed as `rank/a`."""
    ids = tuple(dataset.ids(position, position + 1)[0] for position in positions)
    outcome = Rank().compute(SimpleNamespace(device="cpu"), variant("rank"), Mapped(positions, ids, maps))  # type: ignore[arg-type]
    output.commit("rank/a", 0, COUNT, outcome.table, outcome.failed, outcome.expected)


def some_maps(count: int) -> torch.Tensor:
    return torch.rand(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(5))


def seen(output: Output, dataset: Dataset, ranks: str | None, start: int = 0, stop: int = COUNT) -> Any:
    cache = ImageCache(dataset, 2**20, 1)
    return MaskedImages(output, cache, CELL, ranks, GREY, NOISE).read(start, stop)


def test_a_map_that_is_the_same_everywhere_has_no_ranks_and_is_no_failure(output: Output, dataset: Dataset) -> None:
    maps = some_maps(3)
    maps[1] = 0.5
    commit_ranks(output, dataset, maps, (0, 1, 2))
    positions, ranks = stored_ranks(output, "rank/a", 0, COUNT)
    assert positions.tolist() == [0, 2] and output.failures(["rank/a"]).num_rows == 0
    assert torch.equal(ranks, pixel_ranks(maps[[0, 2]])[:, 0])


def test_an_image_without_ranks_is_masked_as_the_random_arm_masks_it(output: Output, dataset: Dataset) -> None:
    maps, have = some_maps(5), (0, 2, 3, 6, 7)
    commit_ranks(output, dataset, maps, have)
    found, clean = seen(output, dataset, "rank/a"), seen(output, dataset, None)
    assert found.positions == clean.positions == tuple(range(COUNT))
    assert found.ranked.nonzero()[:, 0].tolist() == list(have) and not clean.ranked.any()
    # The random arm by its own way: maps of the method `random`, ranked.
    model = Classifier(build_network("cifar_cnn4", 2), classes=2)
    batch = Batch(clean.images.float() / 255, torch.zeros(COUNT, dtype=torch.int64), clean.ids)
    ranks = pixel_ranks(Random()(model, batch, NOISE))[:, 0]
    ranks[list(have)] = pixel_ranks(maps)[:, 0]
    assert torch.equal(found.images, masked(clean.images, ranks, 0.25, "roar", GREY))
    assert torch.equal(found.labels, clean.labels)


def test_a_part_of_a_split_is_masked_like_the_whole(output: Output, dataset: Dataset) -> None:
    commit_ranks(output, dataset, some_maps(5), (0, 2, 3, 6, 7))
    whole = seen(output, dataset, "rank/a")
    for start, stop in ((0, 3), (3, 4), (4, 6), (5, 8)):
        assert torch.equal(seen(output, dataset, "rank/a", start, stop).images, whole.images[start:stop])


def test_only_images_that_are_asked_for_count_as_lacking_ranks(output: Output, dataset: Dataset) -> None:
    commit_ranks(output, dataset, some_maps(5), (0, 2, 3, 6, 7))
    assert count_unranked(output, "rank/a", np.arange(COUNT)) == 3
    assert count_unranked(output, "rank/a", np.array([0, 1, 7])) == 1
    assert count_unranked(output, "rank/nothing", np.arange(COUNT)) == COUNT


def trained(output: Output, dataset: Dataset, method: str | None, share: float) -> dict[str, Any]:
    """The row of a cell of which both splits are the same images."""
    labels = dataset.load(range(COUNT)).labels.numpy()
    table = pa.table({"position": np.arange(COUNT), "id": dataset.ids(0, COUNT), "label": labels})
    output.commit("statistics/a", 0, COUNT, table, [], dataset.ids(0, COUNT))
    cell = CELL.model_copy(update={"method": method, "max_unranked_share": share})
    ranks = {"retraining": "rank/a", "explained": "rank/a"} if method else {}
    planned = variant(
        "retrain",
        cell=cell,
        classes=2,
        rank_variants=ranks,
        statistics_variants={"retraining": "statistics/a", "explained": "statistics/a"},
    )
    cache = ImageCache(dataset, 2**20, 1)
    around: Any = SimpleNamespace(
        job=SimpleNamespace(options=SimpleNamespace(device_share=1.0)),
        output=output,
        images=lambda split: cache,
        statistics=lambda variant: ChannelStatistics((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        noise=NOISE,
        device=torch.device("cpu"),
        processes=ALONE,
        streamed="",
    )
    outcome = Retrain().compute(around, planned, (cell, Unit(planned.path, 0, 1)))
    row: dict[str, Any] = outcome.table.to_pylist()[0]
    return row


def test_an_arm_with_failed_maps_has_the_images_of_the_clean_arm_and_counts_them(
    output: Output, dataset: Dataset
) -> None:
    commit_ranks(output, dataset, some_maps(7), (0, 1, 2, 3, 4, 5, 6))
    rows = [trained(output, dataset, method, 0.2) for method in (None, "a")]
    assert [(row["train_images"], row["test_images"], row["left_out"]) for row in rows] == [(COUNT, COUNT, 0)] * 2
    # One of each split.
    assert [row["unranked"] for row in rows] == [0, 2]


def test_a_method_with_too_few_maps_is_not_trained(output: Output, dataset: Dataset) -> None:
    commit_ranks(output, dataset, some_maps(7), (0, 1, 2, 3, 4, 5, 6))
    with pytest.raises(ShardError, match=r"a has no order of the pixels of 1 of 8 training images .* is 0\.1$"):
        trained(output, dataset, "a", 0.1)


def test_small_row_groups_serve_a_range_of_ranks(output: Output) -> None:
    ranks = torch.arange(200 * 4, dtype=torch.int32).view(200, 2, 2)
    ids = [str(number) for number in range(200)]
    table = pa.table({"position": np.arange(200), "id": ids, "ranks": tensor_array(ranks)})
    output.commit("rank/a", 0, 200, table, [], ids)
    (part,) = output.parts("rank/a")
    groups = pq.ParquetFile(output.path(f"rank/a/{part.file}")).metadata.num_row_groups
    assert groups == 4
    positions, found = stored_ranks(output, "rank/a", 70, 75)
    assert positions.tolist() == list(range(70, 75)) and torch.equal(found, ranks[70:75])

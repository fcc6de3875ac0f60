"""The image cache and regions: read when somebody asks, with the images, within its bytes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from region_files import (
    MASK_LAYOUTS,
    MASKS,
    encoded_images,
    opened,
    write,
)

from pipeline.data import Dataset, Digits, Parquet, Shapes, Shard, build_index
from pipeline.errors import ShardError
from pipeline.stages.image_cache import ImageCache


class Watched(Dataset):
    """A data set that notes what is asked of it."""

    def __init__(self, config: Parquet | Shapes) -> None:
        super().__init__(config, build_index(config), 0)
        self.asked: list[tuple[int, int, bool]] = []

    def load(self, positions: range, threads: int = 2, *, regions: bool = False) -> Shard:
        self.asked.append((positions.start, positions.stop, regions))
        return super().load(positions, threads, regions=regions)


def test_the_cache_gives_regions_of_any_positions_in_their_order() -> None:
    config = Shapes(count=300, size=32, shortcut=0.5)
    dataset = Watched(config)
    whole = dataset.load(range(300), regions=True)
    cache = ImageCache(dataset, 2**20, 1)
    for positions in ([5], [299, 0, 128, 127], list(range(100, 270))):
        found = cache.regions(positions)
        assert found.keys() == {"object", "shortcut"}
        assert all(found[name].equal(whole.regions[name][positions]) for name in found)
    assert cache.regions([])["object"].shape == (0, 1, 32, 32)
    assert cache.get(120, 140).images.equal(whole.images[120:140])


def test_the_cache_reads_no_regions_before_somebody_asks_and_then_with_the_images() -> None:
    dataset = Watched(Shapes(count=384, size=32))
    cache = ImageCache(dataset, 2**30, 1)
    cache.get(0, 200)
    cache.regions([3])
    cache.get(0, 128)
    cache.get(100, 384)
    cache.regions([383])
    cache.regionless([383])
    assert dataset.asked == [(0, 256, False), (0, 128, True), (128, 384, True)]


def test_the_cache_keeps_to_its_bytes() -> None:
    dataset = Watched(Shapes(count=512, size=32))
    block = 128 * 32 * 32
    cache = ImageCache(dataset, 2 * 4 * block, 1)
    cache.regions([0, 128])
    cache.regions([0])
    cache.regions([256])
    dataset.asked.clear()
    cache.regions([0])
    cache.regions([256])
    assert dataset.asked == []
    cache.regions([128])
    assert dataset.asked == [(128, 256, True)]


def test_the_cache_names_the_samples_whose_region_is_not_known(tmp_path: Path) -> None:
    masks = MASK_LAYOUTS["binary"](MASKS).to_pylist()
    masks[1] = masks[4] = None
    path = write(tmp_path / "a.parquet", masks=pa.array(masks))
    cache = ImageCache(opened(Parquet(path=path, mask_column="masks")), 2**20, 1)
    assert [(one.position, one.id, one.reason) for one in cache.regionless([0, 4, 7])] == [
        (4, "s4", "the mask is null")
    ]
    assert cache.regions([0, 4])["object"].flatten(1).any(1).tolist() == [True, False]


def test_the_cache_says_when_an_image_is_gone(tmp_path: Path) -> None:
    images = encoded_images(MASKS).to_pylist()
    images[2] = None
    path = write(tmp_path / "a.parquet", pa.array(images), masks=MASK_LAYOUTS["binary"](MASKS))
    cache = ImageCache(opened(Parquet(path=path, mask_column="masks")), 2**20, 1)
    with pytest.raises(ShardError, match="position 2"):
        cache.regions([1, 2])
    assert ImageCache(Dataset(Digits(), build_index(Digits()), 0), 2**20, 1).regions([1, 2]) == {}

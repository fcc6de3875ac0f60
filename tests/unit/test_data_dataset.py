"""What is selected, in which order, and what the fingerprint depends on."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.data import SOURCES, Dataset, DatasetConfig, Parquet, SourceConfig, build_index
from pipeline.errors import FatalError

NAMES = ("ant", "bee", "cat", "dog")


@pytest.fixture
def config(tmp_path: Path) -> Parquet:
    images = np.arange(40 * 4 * 4, dtype=np.int64).reshape(40, 4, 4).astype(np.uint8)
    table = pa.table(
        {
            "id": [f"set/{row:02d}" for row in range(40)],
            "label": np.arange(40) % 4,
            "image": pa.FixedShapeTensorArray.from_numpy_ndarray(images),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=8)
    return Parquet(path=str(tmp_path / "a.parquet"), class_names=NAMES)


def chosen(config: Parquet, seed: int = 0, **changes: object) -> Dataset:
    changed = config.model_copy(update=changes)
    return Dataset(changed, build_index(changed), seed)


def names(dataset: Dataset) -> list[str]:
    return dataset.ids(0, len(dataset))


def refusal(config: Parquet, **changes: object) -> str:
    with pytest.raises(FatalError) as caught:
        chosen(config, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_limit_shortens_and_changes_neither_positions_nor_fingerprint(config: Parquet):
    whole, short = chosen(config), chosen(config, limit=5)
    assert names(short) == names(whole)[:5]
    assert short.fingerprint == whole.fingerprint


def test_a_limit_past_the_end_keeps_all(config: Parquet):
    assert len(chosen(config, limit=1000)) == 40


def test_ids_come_in_the_sources_order(config: Parquet):
    assert names(chosen(config, ids=("set/30", "set/02", "set/30"))) == ["set/02", "set/30"]


def test_classes_by_label_and_by_name_are_the_same_selection(config: Parquet):
    by_label, by_name = chosen(config, classes=(3, 1)), chosen(config, classes=("bee", "dog"))
    assert set(by_label.labels(0, 99).tolist()) == {1, 3}
    assert names(by_label) == names(by_name)
    assert by_label.fingerprint == by_name.fingerprint


def test_a_name_that_two_classes_bear_keeps_both(config: Parquet):
    dataset = chosen(config, class_names=("ant", "crane", "cat", "crane"), classes=("crane",))
    assert set(dataset.labels(0, 99).tolist()) == {1, 3}


def test_a_sample_is_drawn_by_the_seed_and_kept_in_the_sources_order(config: Parquet):
    drawn = names(chosen(config, sample=12))
    assert drawn == names(chosen(config, sample=12))
    assert drawn == sorted(set(drawn))
    assert drawn != names(chosen(config, sample=12, seed=1))


def test_a_larger_sample_contains_the_smaller(config: Parquet):
    assert set(names(chosen(config, sample=6))) < set(names(chosen(config, sample=12)))


def test_a_sample_is_drawn_from_what_ids_and_classes_leave(config: Parquet):
    assert set(chosen(config, classes=(2,), sample=5).labels(0, 5).tolist()) == {2}
    assert len(chosen(config, sample=12, limit=4)) == 4


def test_the_fingerprint_follows_what_defines_the_samples(config: Parquet):
    datasets = [
        chosen(config),
        chosen(config, resize=8),
        chosen(config, resize=8, interpolation="nearest"),
        chosen(config, crop=3),
        chosen(config, classes=(1,)),
        chosen(config, ids=("set/01",)),
        chosen(config, sample=12),
        chosen(config, sample=12, seed=1),
        chosen(config, sample=13),
    ]
    assert len({dataset.fingerprint for dataset in datasets}) == len(datasets)


def test_the_fingerprint_ignores_what_does_not(config: Parquet, tmp_path: Path):
    (tmp_path / "moved").mkdir()
    moved = Path(config.path).rename(tmp_path / "moved" / "b.parquet")
    config = config.model_copy(update={"path": str(moved)})
    expected = chosen(config).fingerprint
    assert chosen(config, seed=5).fingerprint == expected
    assert chosen(config, select="correct").fingerprint == expected
    assert chosen(config, train_path="elsewhere").fingerprint == expected
    assert chosen(config, interpolation="nearest").fingerprint == expected


def test_the_fingerprint_of_moved_files_stays(config: Parquet, tmp_path: Path):
    before = chosen(config).fingerprint
    moved = Path(config.path).rename(tmp_path / "b.parquet")
    assert chosen(config, path=str(moved)).fingerprint == before


def test_unknown_names_are_met_with_the_nearest(config: Parquet):
    assert "did you mean 'set/07'?" in refusal(config, ids=("set/007",))
    assert "did you mean 'set/07'?" in refusal(config, ids=("set/01", "07"))
    assert "did you mean 'cat'?" in refusal(config, classes=("cats",))
    assert "did you mean 'cat'?" in refusal(config, classes=("CAT",))
    assert "expected 0 to 3" in refusal(config, classes=(4,))
    assert "give labels" in refusal(config, class_names=None, classes=("cat",))


def test_impossible_selections_are_refused(config: Parquet):
    assert "41 samples were asked for, there are 40" in refusal(config, sample=41)
    assert "no sample has both" in refusal(config, ids=("set/01",), classes=(0,))


def test_a_position_outside_is_the_callers_mistake(config: Parquet):
    dataset = chosen(config, limit=3)
    for position in (3, -1):
        with pytest.raises(IndexError):
            dataset.load([position])


def test_no_positions_give_an_empty_shard(config: Parquet):
    shard = chosen(config).load([])
    assert shard.images.shape == (0, 3, 4, 4)
    assert len(shard) == 0


def test_positions_mean_the_selected_samples(config: Parquet):
    shard = chosen(config, classes=(3,)).load([9, 0])
    assert shard.ids == ("set/39", "set/03")
    assert shard.positions == (9, 0)
    assert shard.images[0, 0, 0, 0] == 39 * 16 % 256


def test_an_index_from_a_memory_map_serves_as_well(config: Parquet, tmp_path: Path):
    index = build_index(config)
    with pa.ipc.new_file(tmp_path / "index.arrow", index.schema) as writer:
        writer.write_table(index)
    with pa.memory_map(str(tmp_path / "index.arrow")) as stream:
        mapped = Dataset(config, pa.ipc.open_file(stream).read_all(), 0)
        fresh = Dataset(config, index, 0)
        assert mapped.fingerprint == fresh.fingerprint
        assert mapped.load(range(40)).images.equal(fresh.load(range(40)).images)


def test_a_dataset_travels_to_another_process(config: Parquet):
    dataset = chosen(config, sample=7)
    there = pickle.loads(pickle.dumps(dataset))
    assert there.fingerprint == dataset.fingerprint
    assert there.load(range(7)).images.equal(dataset.load(range(7)).images)


def test_a_table_that_is_no_index_is_refused(config: Parquet):
    with pytest.raises(FatalError, match="delete it and run again"):
        Dataset(config, pa.table({"id": ["a"], "label": [0]}), 0)


@pytest.mark.parametrize("source", SOURCES)
def test_every_setting_is_described(source: type[SourceConfig]):
    missing = [name for name, field in source.model_fields.items() if name != "source" and not field.description]
    assert missing == []
    assert set(source.paths) <= set(source.model_fields)


@pytest.mark.parametrize("source", SOURCES)
def test_the_union_is_told_apart_by_the_source(source: type[SourceConfig]):
    name = source.model_fields["source"].default
    needed = {"path": "somewhere"} if "path" in source.model_fields else {}
    built = TypeAdapter(DatasetConfig).validate_python({"source": name, **needed})
    assert type(built) is source


def test_a_selection_of_nothing_is_refused():
    with pytest.raises(ValidationError):
        Parquet(path="a", classes=())
    with pytest.raises(ValidationError):
        Parquet(path="a", limit=0)


@pytest.mark.parametrize("key", ["resize", "crop"])
def test_sizes_that_no_memory_holds_are_refused(key: str):
    Parquet.model_validate({"path": "a", key: 4096})
    for size in (4097, 0):
        with pytest.raises(ValidationError):
            Parquet.model_validate({"path": "a", key: size})

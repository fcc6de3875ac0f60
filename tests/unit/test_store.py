"""What is committed is there once and whole; what is not is invisible."""

from __future__ import annotations

import errno
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import FatalError, RetryableError, ShardError
from pipeline.filesystem import file_address, open_filesystem
from pipeline.noise import Noise
from pipeline.part import MARKERS, Failed, Part
from pipeline.store import Output, open_output

VARIANT = "scores/model=m/method=a/metric=b-0123"


def rows(start: int, stop: int, value: float = 0.0) -> pa.Table:
    positions = list(range(start, stop))
    return pa.table(
        {
            "position": positions,
            "id": [f"s{one}" for one in positions],
            "value": [value + one for one in positions],
        }
    )


def ids(start: int, stop: int) -> list[str]:
    return [f"s{one}" for one in range(start, stop)]


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return open_output(tmp_path / "out", create=True)


def test_committed_rows_are_read_back_in_order(output: Output) -> None:
    output.commit(VARIANT, 4, 8, rows(4, 8), [], ids(4, 8))
    output.commit(VARIANT, 0, 4, rows(0, 4), [], ids(0, 4))
    assert output.read(VARIANT)["id"].to_pylist() == ids(0, 8)
    assert output.read(VARIANT, 2, 6, ["id"])["id"].to_pylist() == ids(2, 6)


def test_a_part_without_a_marker_does_not_exist(output: Output) -> None:
    output.commit(VARIANT, 0, 4, rows(0, 4), [], ids(0, 4))
    marker = next((Path(output.uri) / VARIANT / MARKERS).iterdir())
    marker.unlink()
    assert output.parts(VARIANT) == [] and output.read(VARIANT) is None


def test_the_marker_is_written_last(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    original = Output.write_bytes
    monkeypatch.setattr(
        Output,
        "write_bytes",
        lambda self, name, content: (written.append(name), original(self, name, content))[1],
    )
    output.commit(VARIANT, 0, 2, rows(0, 1), [Failed(1, "s1", "corrupt")], ids(0, 2))
    assert [MARKERS in name for name in written] == [False, False, True]


def test_a_retry_of_the_same_unit_does_not_duplicate_rows(output: Output) -> None:
    output.commit(VARIANT, 0, 4, rows(0, 4), [], ids(0, 4))
    output.commit(VARIANT, 0, 4, rows(0, 4), [], ids(0, 4))
    output.commit(VARIANT, 0, 4, rows(0, 4, 0.5), [], ids(0, 4))
    assert output.read(VARIANT)["id"].to_pylist() == ids(0, 4)


def test_overlapping_parts_of_other_sizes_never_give_a_row_twice(output: Output) -> None:
    output.commit(VARIANT, 0, 8, rows(0, 8), [], ids(0, 8))
    output.commit(VARIANT, 4, 6, rows(4, 6), [], ids(4, 6))
    output.commit(VARIANT, 8, 10, rows(8, 10), [], ids(8, 10))
    assert output.read(VARIANT)["id"].to_pylist() == ids(0, 10)


def test_ids_in_are_ids_out(output: Output) -> None:
    with pytest.raises(ShardError, match=r"missing \['s3'\]"):
        output.commit(VARIANT, 0, 4, rows(0, 3), [], ids(0, 4))
    with pytest.raises(ShardError, match=r"unexpected \['s4'\]"):
        output.commit(VARIANT, 0, 4, rows(0, 5), [], ids(0, 4))
    assert output.parts(VARIANT) == []


def test_failures_count_as_out_and_are_kept_with_their_reason(output: Output) -> None:
    receipt = output.commit(VARIANT, 0, 3, rows(0, 2), [Failed(2, "s2", "truncated JPEG")], ids(0, 3))
    assert (receipt.rows, receipt.failures) == (2, 1)
    assert output.failures([VARIANT]).to_pylist() == [
        {"position": 2, "id": "s2", "stage": "scores", "reason": "truncated JPEG"}
    ]


def test_plain_pyarrow_reads_a_part(output: Output) -> None:
    output.commit(VARIANT, 0, 4, rows(0, 4), [], ids(0, 4))
    file = next((Path(output.uri) / VARIANT).glob("*.parquet"))
    assert pq.ParquetFile(file).read()["id"].to_pylist() == ids(0, 4)


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: object) -> None:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FatalError, match="no space left; free some"):
        output.commit(VARIANT, 0, 4, rows(0, 4), [], ids(0, 4))
    assert output.parts(VARIANT) == []
    assert not list(Path(output.uri).rglob("*.tmp"))


def test_an_unknown_error_of_the_disk_may_be_tried_again(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(source: object, target: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(RetryableError):
        output.write_bytes("a", b"b")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(FatalError, match="not a heatline output"):
        open_output(tmp_path, create=True)
    with pytest.raises(FatalError, match="is a file"):
        open_output(tmp_path / "thesis.tex", create=True)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["thesis.tex"]


def test_an_output_of_a_newer_format_is_refused(output: Output) -> None:
    output.write_bytes("heatline.json", b'{"format": 99}')
    with pytest.raises(FatalError, match="format 99"):
        open_output(output.uri)


def test_a_cached_table_is_made_once(output: Output) -> None:
    made = []

    def build() -> pa.Table:
        made.append(1)
        return rows(0, 3)

    assert output.cached_table("index/a.arrow", build).equals(output.cached_table("index/a.arrow", build))
    assert len(made) == 1


def test_a_cached_table_that_is_damaged_is_made_anew(output: Output) -> None:
    output.write_bytes("index/a.arrow", b"half of")
    assert output.cached_table("index/a.arrow", lambda: rows(0, 3)).equals(rows(0, 3))
    assert output.open_table("index/a.arrow").equals(rows(0, 3))


@pytest.mark.parametrize(("start", "stop", "left"), [(0, 4, 0), (2, 8, 2), (3, 5, 1), (6, 12, 3), (8, 9, 1)])
def test_what_has_to_be_whole_is_whole_or_an_error(output: Output, start: int, stop: int, left: int) -> None:
    for first, last in ((0, 4), (6, 8), (9, 10)):
        failed = [Failed(first, f"s{first}", "no image")]
        output.commit(VARIANT, first, last, rows(first + 1, last), failed, ids(first, last))
    if left:
        with pytest.raises(RetryableError, match=f"of positions {start} to {stop - 1}, {left} are not committed"):
            output.read_all(VARIANT, start, stop)
    else:
        assert output.read_all(VARIANT, start, stop, ["position"])["position"].to_pylist() == [1, 2, 3]


def test_of_parts_that_overlap_the_first_and_then_the_longest_counts(output: Output) -> None:
    draw = Noise(0).generator("parts", "overlap")
    for number in range(20):
        variant = f"{VARIANT}{number}"
        found = []
        for _ in range(12):
            start, size = (int(one) for one in draw.integers(0, 12, 2))
            part = Part(start, start + size + 1, f"{int(draw.integers(3)):016x}")
            found.append(part)
            output.write_bytes(f"{variant}/{MARKERS}/{part.marker}", b"{}")
        output.write_bytes(f"{variant}/{MARKERS}/notes.txt", b"no marker")
        counted: list[Part] = []
        for part in sorted(set(found), key=lambda one: (one.start, -one.stop, one.hash)):
            if not counted or part.start >= counted[-1].stop:
                counted.append(part)
        assert output.parts(variant) == counted


def test_what_was_written_here_is_read_without_a_listing(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    for start in (8, 0, 4):
        output.commit(VARIANT, start, start + 4, rows(start, start + 4), [], ids(start, start + 4))

    def listing(self: Output, folder: str) -> list[str]:
        raise AssertionError(f"{folder} was listed")

    monkeypatch.setattr(Output, "names", listing)
    assert output.read(VARIANT, 2, 10, ["id"])["id"].to_pylist() == ids(2, 10)


def test_an_address_with_credentials_is_refused_without_showing_them() -> None:
    with pytest.raises(FatalError, match="credentials by the environment") as caught:
        open_output("s3://me:secret@bucket/out")
    assert "secret" not in str(caught.value)


def test_a_place_under_a_root_is_named_without_the_roots_options() -> None:
    assert file_address("/data/out", "runs/a.json") == "/data/out/runs/a.json"
    assert file_address("s3://bucket/out/?region=eu-west-1", "runs/a.json") == "s3://bucket/out/runs/a.json"


@pytest.mark.parametrize(("answers", "attempts"), [(1, 1), (3, 3), (4, 3)])
def test_a_region_that_nobody_tells_for_a_moment_is_asked_for_again(
    answers: int, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def resolve(bucket: str) -> str:
        asked.append(bucket)
        if len(asked) < answers:
            raise OSError("When resolving region for bucket: AWS Error NETWORK_CONNECTION: Could not resolve hostname")
        return "eu-west-1"

    monkeypatch.setattr("pipeline.filesystem.pafs.resolve_s3_region", resolve)
    monkeypatch.setattr("pipeline.filesystem.time.sleep", lambda seconds: None)
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    if attempts < answers:
        with pytest.raises(RetryableError, match=r"s3://bucket/out: its region cannot be looked up: .*NETWORK"):
            open_filesystem("s3://bucket/out")
    else:
        filesystem, path = open_filesystem("s3://bucket/out")
        assert (filesystem.region, path) == ("eu-west-1", "bucket/out")
    assert asked == ["bucket"] * attempts


def test_a_bucket_that_is_not_there_is_a_mistake_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(bucket: str) -> str:
        raise OSError(f"Bucket '{bucket}' not found")

    monkeypatch.setattr("pipeline.filesystem.pafs.resolve_s3_region", resolve)
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(FatalError, match="Bucket 'bucket' not found"):
        open_filesystem("s3://bucket/out")

"""Whole jobs into S3, as moto's server speaks it: the same results, few calls, and a store that fails now and then."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from object_store import ObjectStore, object_store
from PIL import Image

from jobs.cli import MISTAKE, OK, STOPPED, main
from pipeline import filesystem
from pipeline.claim import Claims
from pipeline.data import Dataset, build_index
from pipeline.data.digits import Digits
from pipeline.data.parquet import Parquet
from pipeline.errors import FatalError, RetryableError
from pipeline.models import read_weights
from pipeline.models.weights import weights_bytes
from pipeline.neighbour import CLAIMS, Stretch
from pipeline.part import MARKERS
from pipeline.stages.worker import Worker
from pipeline.store import Output, open_output

SAMPLES = 32
VARIANTS = 7
"""Predictions, three methods and their scores."""


def arguments(folder: Path, output: str, **profile: object) -> list[str]:
    """Of a command about a small job with its output at a path or address."""
    spec = {
        "version": 1,
        "name": "job",
        "output": output,
        "dataset": {"source": "digits", "limit": SAMPLES},
        "models": [{"name": "mnist_cnn2", "weights": "random"}],
        "methods": ["random", "gradient", {"name": "integrated_gradients", "steps": 20}],
        "metrics": [{"name": "deletion", "step": 256}],
        "report": {"samples": 1},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(spec))
    (folder / "profile.yaml").write_text(yaml.safe_dump({"executor": "local", "in_flight": 3, "rows": 16, **profile}))
    return [str(folder / "job.yaml"), "--profile", str(folder / "profile.yaml")]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Output:
    """The job on a disk, undisturbed."""
    folder = tmp_path_factory.mktemp("disk")
    assert main(["run", *arguments(folder, str(folder / "out"))]) == OK
    return open_output(folder / "out")


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with object_store() as store:
        yield store


@pytest.fixture
def store(server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    server.failing, server.refusal = 0.0, ""
    server.requests.clear()
    return server


def results(output: Output) -> tuple[dict[tuple[str, str], np.ndarray], dict[tuple[str, ...], float]]:
    """Maps by method and sample, scores by method, metric and sample."""
    table = output.maps().to_table()
    keys = list(zip(table["method"].to_pylist(), table["id"].to_pylist(), strict=True))
    rows = output.scores().to_pandas()
    scores = {(row.method, row.metric, row.id): row.value for row in rows.itertuples()}
    assert len(set(keys)) == len(keys) == 3 * SAMPLES and len(scores) == len(rows) == 3 * SAMPLES
    return dict(zip(keys, table["map"].combine_chunks().to_numpy_ndarray(), strict=True)), scores


def assert_same(first: Output, second: Output) -> None:
    (maps, scores), (others, other_scores) = results(first), results(second)
    assert maps.keys() == others.keys() and scores.keys() == other_scores.keys()
    for key, value in maps.items():
        np.testing.assert_allclose(value, others[key], atol=0 if key[0] == "random" else 1e-6)
    for name, score in scores.items():
        assert score == pytest.approx(other_scores[name], abs=1e-5)


def markers(place: str) -> set[str]:
    """Markers under a place, which is given without `s3://`."""
    bucket, _ = filesystem.open_filesystem(f"s3://{place}")
    found = bucket.get_file_info(pafs.FileSelector(place, recursive=True))
    return {info.path for info in found if info.type == pafs.FileType.File and f"/{MARKERS}/" in info.path}


def test_a_job_in_a_bucket_takes_few_calls_and_is_read_like_one_on_a_disk(
    store: ObjectStore,
    disk: Output,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    address = f"{store.bucket('whole')}/jobs/first"
    job = arguments(tmp_path, address, unit_passes=1)
    assert main(["run", *job]) == OK
    puts = [one.key for one in store.requests if one.kind == "put" and one.key.endswith((".json", ".parquet"))]
    parts, written = [key for key in puts if "/part-" in key], [key for key in puts if f"/{MARKERS}/" in key]
    assert store.count("post") == 0, "an upload in parts is three calls, a put is one"
    assert len(parts) == len(set(parts)) == len(written) == len(set(written)) == len(markers("whole/jobs/first")) > 40
    # Those of the parts' readers: the page reads each part's footer and rows.
    assert store.count("list", MARKERS) < len(written), "no listing a unit"

    store.requests.clear()
    capsys.readouterr()
    assert main(["plan", *job, "--json"]) == OK
    assert all(stage["samples"] == 0 for stage in json.loads(capsys.readouterr().out)["stages"])
    assert store.count("list", MARKERS) == VARIANTS, "one listing a variant tells what is done"
    assert len(store.requests) < VARIANTS + 20, "and nothing is asked of a unit"

    assert_same(disk, open_output(address))
    assert main(["compare", disk.uri, address]) == OK
    assert main(["status", address]) == OK and main(["history", address, "--page"]) == OK
    assert f"{address}/report/history.html" in capsys.readouterr().out.splitlines()
    sample = Dataset(Digits(), build_index(Digits()), 0).ids(0, 1)[0]
    assert main(["show", address, "--sample", sample, "--save", "sample.png"]) == OK
    assert Path("sample.png").stat().st_size > 0
    # As anybody reads it who has never heard of this program.
    bucket = pafs.S3FileSystem(endpoint_override=store.url, region="us-east-1")
    plain = ds.dataset("whole/jobs/first/maps", filesystem=bucket, format="parquet", exclude_invalid_files=True)
    assert plain.count_rows() == 3 * SAMPLES


def test_a_store_that_fails_a_twentieth_of_its_calls_gives_the_same_data(
    store: ObjectStore, disk: Output, tmp_path: Path
) -> None:
    address = f"{store.bucket('failing')}/out"
    store.failing = 0.05
    assert main(["run", *arguments(tmp_path, address, in_flight=8, unit_passes=8)]) == OK
    failed = sum(one.answer in (0, 500, 503) for one in store.requests)
    store.failing = 0.0
    assert failed > 5, f"{failed} of {len(store.requests)} requests failed"
    assert_same(disk, open_output(address))
    found = markers("failing/out")
    assert len({marker.rsplit("-", 1)[0] for marker in found}) == len(found) > VARIANTS, "a range is committed once"


@pytest.mark.slow
def test_ray_workers_write_into_a_bucket_what_a_disk_gets(store: ObjectStore, disk: Output, tmp_path: Path) -> None:
    address = f"{store.bucket('ray')}/out"
    workers = {"executor": "ray", "workers": 2, "cpus_per_worker": 0.5, "object_store_mb": 100}
    job = arguments(tmp_path, address, unit_passes=8, **workers)
    # A process of its own: workers have the environment in which their Ray was started.
    run = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "run", *job], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert run.returncode == OK, run.stderr
    assert_same(disk, open_output(address))


def test_calls_are_tried_again_however_often_that_was_necessary_before(store: ObjectStore) -> None:
    output = open_output(f"{store.bucket('often')}/out", create=True)
    output.write_bytes("a", b"a")
    store.requests.clear()
    store.failing = 0.1
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(output.read_bytes, ["a"] * 700)) == {b"a"}
    assert sum(one.answer in (0, 500, 503) for one in store.requests) > 110


@pytest.mark.slow
def test_an_interrupted_job_goes_on_and_fresh_takes_it_away_by_prefix(
    store: ObjectStore,
    disk: Output,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = arguments(tmp_path, f"{store.bucket('stopped')}/out", unit_passes=2)
    original, left = Worker.run, [12]

    def stopping(self: Worker, unit: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise FatalError("the credentials have expired")
        return original(self, unit)  # type: ignore[arg-type]

    monkeypatch.setattr(Worker, "run", stopping)
    assert main(["run", *job]) == STOPPED
    assert "Go on with the same command" in capsys.readouterr().err
    monkeypatch.setattr(Worker, "run", original)
    first = {one.key for one in store.requests if one.kind == "put" and f"/{MARKERS}/" in one.key}
    store.requests.clear()
    assert main(["run", *job]) == OK
    second = {one.key for one in store.requests if one.kind == "put" and f"/{MARKERS}/" in one.key}
    assert len(first) >= 12 and second and not first & second, "what was committed is not computed again"
    assert_same(disk, open_output("s3://stopped/out"))

    before = len(markers("stopped/out"))
    store.requests.clear()
    assert main(["run", *arguments(tmp_path, "s3://stopped/out", unit_passes=10**6), "--fresh"]) == OK
    after = markers("stopped/out")
    written = {f"stopped/{one.key}" for one in store.requests if one.kind == "put" and f"/{MARKERS}/" in one.key}
    assert len(after) == 2 * VARIANTS < before and after == written
    assert store.count("delete", "/part-") == 0, "deleted by the thousand, not one by one"


def test_two_runs_share_the_work_in_a_bucket(store: ObjectStore) -> None:
    output = open_output(f"{store.bucket('shared')}/out", create=True)
    stretch = Stretch("predictions/model=m-1", 0, 2048)
    with Claims(output, look_every=0) as one:
        store.requests.clear()
        assert one.take(stretch)
        one.give_back(stretch)
        # Before it deletes an object pyarrow looks whether it is there, and after it the folder is put anew.
        paid = ["put", "list", "head", "delete", "put"]
        assert [request.kind for request in store.requests] == paid, "what a run alone pays for a stretch"
        assert one.take(stretch)
        with Claims(output, look_every=0) as other:
            assert not other.take(stretch)
            one.give_back(stretch)
            assert other.take(stretch) and not one.take(stretch)
        assert one.take(stretch) and one.shared
    assert output.names(CLAIMS) == []


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        ("403 AccessDenied", "access is denied"),
        ("403 InvalidAccessKeyId", "does not know the access key"),
        ("403 SignatureDoesNotMatch", "the secret key is not the access key's"),
        ("400 ExpiredToken", "the credentials have expired"),
        ("301 PermanentRedirect", "another region"),
    ],
)
def test_a_store_that_refuses_is_one_line_that_names_the_place(
    store: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], refusal: str, said: str
) -> None:
    address = f"{store.bucket('refusing')}/out"
    store.refusal = refusal
    assert main(["run", *arguments(tmp_path, address)]) == MISTAKE
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and address in told[0] and said in told[0] and "testing" not in told[0]
    assert len(store.requests) <= 2, "what is refused is not tried again and again"


def test_a_missing_bucket_is_one_line(store: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *arguments(tmp_path, "s3://nowhere/out")]) == MISTAKE
    assert capsys.readouterr().err.strip() == "s3://nowhere/out: there is no such bucket"


def test_a_store_that_does_not_answer_is_one_line(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(filesystem, "ATTEMPTS", 2)
    output = open_output(f"{store.bucket('silent')}/out", create=True)
    store.refusal = "503 SlowDown"
    with pytest.raises(RetryableError, match=r"s3://silent/out/a: .*SLOW_DOWN"):
        output.write_bytes("a", b"a")
    assert store.count("put", "out/a") == 2
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert main(["run", *arguments(tmp_path, "s3://silent/out")]) == STOPPED
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and "s3://silent/out" in told[0]


def test_an_address_with_options_names_its_files_without_them(store: ObjectStore) -> None:
    bucket = store.bucket("options")
    address = f"{bucket}/out?endpoint_override={store.url}&region=us-east-1"
    output = open_output(address, create=True)
    output.write_bytes("report/index.html", b"page")
    assert output.uri == address and output.place("report/index.html") == f"{bucket}/out/report/index.html"
    with pytest.raises(FatalError, match="no option 'regoin'; did you mean 'region'"):
        open_output(f"{bucket}/out?regoin=us-east-1")


def test_images_and_weights_are_read_from_a_bucket(store: ObjectStore, tmp_path: Path) -> None:
    bucket = store.bucket("data")
    files, _ = filesystem.open_filesystem(bucket)
    images = []
    for value in (0, 200):
        content = io.BytesIO()
        Image.new("RGB", (8, 8), (value, value, value)).save(content, "PNG")
        images.append({"bytes": content.getvalue(), "path": None})
    pq.write_table(pa.table({"image": images, "label": [0, 1]}), "data/images/a.parquet", filesystem=files)
    config = Parquet(path=f"{bucket}/images")
    shard = Dataset(config, build_index(config), 0).load([1, 0])
    assert shard.images[:, 0, 0, 0].tolist() == [200, 0] and not shard.failures
    with files.open_output_stream("data/model.safetensors") as stream:
        stream.write(weights_bytes({"layer.weight": torch.ones(2)}, {"architecture": "mine"}))
    assert read_weights(f"{bucket}/model.safetensors").state["layer.weight"].tolist() == [1.0, 1.0]
    with pytest.raises(FatalError, match=r"s3://data/none\.safetensors: no such file"):
        read_weights(f"{bucket}/none.safetensors")
    store.refusal = "403 AccessDenied"
    with pytest.raises(FatalError, match=r"s3://data/model\.safetensors: access is denied"):
        read_weights(f"{bucket}/model.safetensors")
    with pytest.raises(FatalError, match="s3://data/images: access is denied"):
        build_index(config)

"""Whole jobs in this process: what is written, what is reused, what fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from jobs.cli import FAILED, MISTAKE, OK, main
from pipeline.contracts import Batch
from pipeline.data import Dataset, build_index
from pipeline.data.digits import Digits
from pipeline.methods import IntegratedGradients
from pipeline.models import Classifier
from pipeline.noise import Noise
from pipeline.part import Receipt
from pipeline.store import Output, open_output

Write = Callable[..., Path]


def digits_parquet(path: Path, count: int = 12, corrupt: int | None = None) -> Path:
    """The first digits as PNG in the Hugging Face convention, one of them corrupt where asked for."""
    import io

    from PIL import Image

    dataset = Dataset(Digits(), build_index(Digits()), 0)
    shard = dataset.load(range(count))
    images = []
    for number, image in enumerate(shard.images):
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "PNG")
        content = buffer.getvalue()
        images.append({"bytes": content[:40] if number == corrupt else content, "path": None})
    table = pa.table({"id": list(shard.ids), "image": images, "label": shard.labels.numpy()})
    pq.write_table(table, path)
    return path


def committed(output: Output) -> dict[str, float]:
    """Every committed part with the time at which its marker was written."""
    return {str(one): one.stat().st_mtime_ns for one in Path(output.uri).rglob("_committed/*.json")}


def all_maps(output: Output) -> dict[tuple[str, str], np.ndarray]:
    table = output.maps().to_table()
    maps = table["map"].combine_chunks().to_numpy_ndarray()
    keys = zip(table["method"].to_pylist(), table["id"].to_pylist(), strict=True)
    return dict(zip(keys, maps, strict=True))


def all_scores(output: Output) -> dict[tuple[str, str, str], float]:
    rows = output.scores().to_pylist()
    found = {(row["method"], row["metric"], row["id"]): row["value"] for row in rows}
    assert len(found) == len(rows)
    return found


def test_every_sample_is_there_once_for_every_method_and_metric(write_spec: Write, write_profile: Write) -> None:
    assert main(["run", str(write_spec()), "--profile", str(write_profile())]) == OK
    output = open_output(write_spec().parent / "out")
    assert len(all_maps(output)) == 6 * 40
    assert len(all_scores(output)) == 6 * 3 * 40
    frame = output.scores().to_pandas()
    assert set(frame.metric) == {"deletion", "insertion", "mar"} and frame.value.notna().any()
    assert output.predictions().num_rows == 40
    table = output.maps(method="agi").to_table()
    assert table.num_rows == 40 and table.schema.field("map").type.shape == [1, 32, 32]


def test_a_finished_job_computes_nothing_again(write_spec: Write, write_profile: Write) -> None:
    arguments = ["run", str(write_spec()), "--profile", str(write_profile())]
    assert main(arguments) == OK
    output = open_output(write_spec().parent / "out")
    before = committed(output)
    assert main(arguments) == OK
    assert committed(output) == before


def test_a_changed_parameter_computes_that_method_alone(write_spec: Write, write_profile: Write) -> None:
    profile = str(write_profile())
    assert main(["run", str(write_spec()), "--profile", profile]) == OK
    output = open_output(write_spec().parent / "out")
    before = committed(output)
    assert main(["run", str(write_spec()), "--profile", profile, "--set", "methods.5.steps=2"]) == OK
    after = committed(output)
    assert all(after[one] == time for one, time in before.items())
    new = {one for one in after if one not in before}
    assert new and all("agi" in one for one in new)
    assert len(all_maps(output)) == 6 * 40, "the readers show the latest run alone"


def test_a_larger_limit_keeps_what_is_there(write_spec: Write, write_profile: Write) -> None:
    profile = str(write_profile())
    assert main(["run", str(write_spec()), "--profile", profile, "--set", "dataset.limit=25"]) == OK
    output = open_output(write_spec().parent / "out")
    before, first = committed(output), all_maps(output)
    assert main(["run", str(write_spec()), "--profile", profile]) == OK
    after = committed(output)
    assert all(after[one] == time for one, time in before.items())
    second = all_maps(output)
    assert len(second) == 6 * 40 and all(np.array_equal(second[key], value) for key, value in first.items())
    assert main(["run", str(write_spec()), "--profile", profile, "--set", "dataset.limit=10"]) == OK
    assert committed(output) == after and len(all_maps(output)) == 6 * 10


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ({"executor": "ray", "address": "127.0.0.1:1"}, "nobody answers there"),
        ({"executor": "local", "gpus_per_worker": 1}, "PyTorch sees none here"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_fresh_takes_nothing_away_where_nothing_can_be_computed(
    write_spec: Write,
    write_profile: Write,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    profile: dict[str, object],
    said: str,
) -> None:
    spec = str(write_spec())
    assert main(["run", spec, "--profile", str(write_profile())]) == OK
    before = {str(one) for one in (tmp_path / "out").rglob("*") if one.is_file() and "runs" not in one.parts}
    capsys.readouterr()
    assert main(["run", spec, "--profile", str(write_profile("none", **profile)), "--fresh"]) == MISTAKE
    assert said in capsys.readouterr().err
    assert {str(one) for one in (tmp_path / "out").rglob("*") if one.is_file() and "runs" not in one.parts} == before


def test_fresh_computes_everything_again(write_spec: Write, write_profile: Write) -> None:
    arguments = ["run", str(write_spec()), "--profile", str(write_profile())]
    assert main(arguments) == OK
    output = open_output(write_spec().parent / "out")
    before, maps = committed(output), all_maps(output)
    assert main([*arguments, "--fresh"]) == OK
    after = committed(output)
    assert all(after.get(one) != time for one, time in before.items())
    again = all_maps(output)
    assert all(np.array_equal(again[key], value) for key, value in maps.items())


@pytest.mark.parametrize(
    "profile",
    [{"rows": 1, "in_flight": 1}, {"rows": 7, "in_flight": 3}, {"unit_passes": 1}, {"unit_passes": 10**6}],
    ids=["one image a forward", "seven images a forward", "one sample a unit", "large units"],
)
def test_results_do_not_depend_on_batches_or_shards(
    write_spec: Write, write_profile: Write, profile: dict[str, Any]
) -> None:
    reference = write_spec("reference", output=str(write_spec().parent / "reference-out"))
    assert main(["run", str(reference), "--profile", str(write_profile("a"))]) == OK
    assert main(["run", str(write_spec()), "--profile", str(write_profile("b", **profile))]) == OK
    same_results(open_output(write_spec().parent / "reference-out"), open_output(write_spec().parent / "out"))


def same_results(first: Output, second: Output) -> None:
    """Maps and scores within 1e-5, random draws exactly."""
    one, other = all_maps(first), all_maps(second)
    assert one.keys() == other.keys()
    for (method, sample), value in one.items():
        if method == "random":
            assert np.array_equal(value, other[method, sample])
        np.testing.assert_allclose(value, other[method, sample], atol=1e-5, err_msg=f"{method} {sample}")
    scores, others = all_scores(first), all_scores(second)
    assert scores.keys() == others.keys()
    for key, score in scores.items():
        assert (score is None) == (others[key] is None)
        assert score is None or abs(score - others[key]) <= 1e-5, key


def test_a_corrupt_image_is_a_failure_and_the_job_goes_on(
    write_spec: Write, write_profile: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = digits_parquet(tmp_path / "digits.parquet", corrupt=3)
    spec = write_spec(dataset={"source": "parquet", "path": str(data)})
    assert main(["run", str(spec), "--profile", str(write_profile()), "--json"]) == FAILED
    result = json.loads(capsys.readouterr().out)
    assert (result["failures"], result["left"]) == (1, 0)
    output = open_output(tmp_path / "out")
    assert len(all_maps(output)) == 6 * 11
    prediction = next(one["path"] for one in output.run()["variants"] if one["stage"] == "predict")
    failed = output.failures([prediction]).to_pylist()
    assert [row["position"] for row in failed] == [3] and failed[0]["reason"]
    assert main(["run", str(spec), "--profile", str(write_profile()), "--set", "max_failed_share=0.1"]) == OK


def test_select_correct_explains_the_correct_samples_alone(write_spec: Write, write_profile: Write) -> None:
    spec = write_spec(dataset={"source": "digits", "limit": 40, "select": "correct"})
    assert main(["run", str(spec), "--profile", str(write_profile())]) == OK
    output = open_output(spec.parent / "out")
    predictions = output.predictions().to_pylist()
    correct = {row["id"] for row in predictions if row["correct"]}
    assert 0 < len(correct) < 40, "an untrained network is right sometimes"
    assert {sample for _, sample in all_maps(output)} == correct


def test_select_correct_for_all_models_takes_what_every_model_gets_right(
    write_spec: Write, write_profile: Write
) -> None:
    models = [
        {"name": "mnist_cnn2", "weights": "random"},
        {"name": "cifar_resnet8", "weights": "random"},
    ]
    spec = write_spec(
        dataset={"source": "digits", "limit": 200, "select": "correct_for_all_models"},
        models=models, methods=["random"], metrics=[],
    )  # fmt: skip
    assert main(["run", str(spec), "--profile", str(write_profile())]) == OK
    output = open_output(spec.parent / "out")
    rows = output.predictions().to_pylist()
    right = [{row["id"] for row in rows if row["correct"] and row["model"] == one["name"]} for one in models]
    assert 0 < len(right[0] & right[1]) < len(right[0]), "the case tells the two selections apart"
    assert set(output.maps(model="mnist_cnn2").to_table()["id"].to_pylist()) == right[0] & right[1]


def test_targets_are_what_the_method_says(write_spec: Write, write_profile: Write) -> None:
    methods = [
        {"name": "gradient", "id": "predicted"},
        {"name": "gradient", "id": "second", "target": "second"},
        {"name": "gradient", "id": "label", "target": "label"},
    ]
    spec = write_spec(methods=methods, metrics=[])
    assert main(["run", str(spec), "--profile", str(write_profile())]) == OK
    output = open_output(spec.parent / "out")
    expected = {row["id"]: row for row in output.predictions().to_pylist()}
    for name in ("predicted", "second", "label"):
        for row in output.maps(method=name).to_table(columns=["id", "target"]).to_pylist():
            assert row["target"] == expected[row["id"]][name]


def test_reading_commands_speak_json(
    write_spec: Write, write_profile: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write_spec()
    profile = ["--profile", str(write_profile())]
    assert main(["plan", str(spec), *profile, "--json"]) == OK
    planned = json.loads(capsys.readouterr().out)
    assert sum(row["samples"] for row in planned["stages"]) == 40 * (1 + 6 + 18)
    assert main(["run", str(spec), *profile]) == OK
    capsys.readouterr()
    assert main(["plan", str(spec), *profile, "--json"]) == OK
    planned = json.loads(capsys.readouterr().out)
    assert sum(row["samples"] for row in planned["stages"]) == 0
    out = str(spec.parent / "out")
    assert main(["history", out, "--json"]) == OK
    assert json.loads(capsys.readouterr().out)[0]["units"]["lost"] == 0
    assert main(["report", out, "--json"]) == OK
    assert Path(json.loads(capsys.readouterr().out)["page"]).is_file()


def test_a_trained_model_is_trained_once(write_spec: Write, write_profile: Write) -> None:
    training = {"epochs": 1}
    models = [{"name": "mnist_cnn2", "weights": "train", "training": training}]
    spec = write_spec(models=models, methods=["gradient"], metrics=[])
    profile = str(write_profile())
    assert main(["run", str(spec), "--profile", profile]) == OK
    weights = list((spec.parent / "out" / "weights").rglob("*.safetensors"))
    assert main(["run", str(spec), "--profile", profile, "--set", "methods=[gradient, random]"]) == OK
    assert list((spec.parent / "out" / "weights").rglob("*.safetensors")) == weights and len(weights) == 1


def test_out_of_memory_halves_the_batch_and_changes_nothing(
    write_spec: Write, write_profile: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = write_spec("reference", output=str(tmp_path / "reference-out"))
    assert main(["run", str(reference), "--profile", str(write_profile("a"))]) == OK
    original, sizes = IntegratedGradients.__call__, list[int]()

    def short_of_memory(self: IntegratedGradients, model: Classifier, batch: Batch, noise: Noise) -> torch.Tensor:
        sizes.append(model.rows)
        if model.rows > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, model, batch, noise)

    monkeypatch.setattr(IntegratedGradients, "__call__", short_of_memory)
    assert main(["run", str(write_spec()), "--profile", str(write_profile("b"))]) == OK
    assert sizes[:3] == [16, 8, 4] and set(sizes[3:]) == {4}, "the size found is remembered"
    same_results(open_output(tmp_path / "reference-out"), open_output(tmp_path / "out"))


def test_one_image_that_does_not_fit_loses_its_unit_and_no_other(
    write_spec: Write, write_profile: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(self: IntegratedGradients, model: Classifier, batch: Batch, noise: Noise) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(IntegratedGradients, "__call__", never)
    assert main(["run", str(write_spec()), "--profile", str(write_profile())]) == FAILED
    assert "does not fit in memory" in capsys.readouterr().err
    output = open_output(write_spec().parent / "out")
    assert {method for method, _ in all_maps(output)} == set(NAMES) - {"integrated_gradients"}


@pytest.mark.parametrize("error", [MemoryError("no memory"), ImportError("x.so: failed to map segment")])
def test_a_unit_that_finds_no_memory_to_load_or_write_is_tried_again(
    write_spec: Write, write_profile: Write, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    original, left = Output.commit, [2]

    def short_of_memory(self: Output, *given: object, **options: object) -> Receipt:
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return original(self, *given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Output, "commit", short_of_memory)
    assert main(["run", str(write_spec()), "--profile", str(write_profile())]) == OK
    assert left[0] < 0


NAMES = ("random", "gradient", "gradient_x_input", "integrated_gradients", "grad_cam", "agi")

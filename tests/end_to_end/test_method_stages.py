"""What methods need beside images and predictions, in whole jobs: superpixels, calibration, shared work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs.cli import FAILED, OK, main
from pipeline.contracts import Batch
from pipeline.methods.gradient import InputGradient
from pipeline.models import Classifier
from pipeline.noise import Noise
from pipeline.store import open_output

Write = Callable[..., Path]
SHORT = {"name": "dynamic_ablation", "iterations": 8, "superpixels": 40}


def run(write_spec: Write, write_profile: Write, **changes: object) -> int:
    changes = {"dataset": {"source": "digits", "limit": 24}, "metrics": [], **changes}
    return main(["run", str(write_spec(**changes)), "--profile", str(write_profile(rows=8))])


def markers(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/_committed/*.json"))


def test_superpixels_are_made_once_for_all_that_want_the_same(write_spec: Write, write_profile: Write) -> None:
    methods = [{**SHORT, "id": "one"}, {**SHORT, "id": "two", "circles": 2}, {**SHORT, "id": "few", "superpixels": 9}]
    run(write_spec, write_profile, methods=methods)
    folder = write_spec().parent / "out" / "superpixels"
    assert sorted(path.name.rpartition("-")[0] for path in folder.iterdir()) == ["superpixels=40", "superpixels=9"]
    output = open_output(write_spec().parent / "out")
    (path,) = folder.glob("superpixels=40-*")
    table = output.read(f"superpixels/{path.name}")
    assert table is not None and table["position"].to_pylist() == list(range(24))
    labels = table["superpixels"].combine_chunks().to_numpy_ndarray()
    assert labels.shape == (24, 32, 32) and all(np.array_equal(np.unique(one), range(one.max() + 1)) for one in labels)


def test_what_a_method_finds_beside_its_map_is_a_column(write_spec: Write, write_profile: Write) -> None:
    run(write_spec, write_profile, methods=["gradient", SHORT])
    output = open_output(write_spec().parent / "out")
    table = output.maps(method="dynamic_ablation").to_table()
    shares = table["kept"].combine_chunks().to_numpy_ndarray().mean((1, 2))
    np.testing.assert_allclose(table["mar"].to_numpy(), shares, rtol=1e-6)
    assert [min([*areas, 1]) for areas in table["areas"].to_pylist()] == pytest.approx(table["mar"].to_pylist())
    # Beside a method that finds nothing else, the columns are null there.
    together = output.maps().to_table()
    mine = together.filter(pa.compute.equal(together["method"], "gradient"))
    assert len(mine) == 24 and mine["mar"].null_count == 24


def test_an_image_that_a_rule_cannot_explain_is_a_failure_with_its_reason(
    write_spec: Write, write_profile: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(write_spec, write_profile, methods=[{**SHORT, "target": "second"}]) == FAILED
    output = open_output(write_spec().parent / "out")
    (variant,) = [one["path"] for one in output.run()["variants"] if one["stage"] == "attribute"]
    failures = output.failures([variant]).to_pylist()
    assert len(failures) == 24
    assert all("the whole image is predicted as class" in one["reason"] for one in failures)


def test_a_calibration_is_found_once_and_serves_all_that_want_the_same(write_spec: Write, write_profile: Write) -> None:
    methods = ["prune_grad", {"name": "prune_pgd", "steps": 2}]
    assert run(write_spec, write_profile, methods=methods) == OK
    out = write_spec().parent / "out"
    (marker,) = out.glob("calibration/model=*/*/_committed/*.json")
    written = marker.stat().st_mtime_ns
    output = open_output(out)
    table = output.read(str(marker.parents[1].relative_to(out)))
    assert table is not None and "percentile" in {one["name"] for one in table["found"][0].as_py()}
    assert output.maps().count_rows() == 48
    # Another method of the same model later: the number is there.
    run(write_spec, write_profile, methods=[*methods, {"name": "prune_grad", "id": "label", "target": "label"}])
    assert [one.stat().st_mtime_ns for one in out.glob("calibration/model=*/*/_committed/*.json")] == [written]


def test_methods_that_share_work_do_it_once(
    write_spec: Write, write_profile: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    compute = InputGradient.__call__

    def counted(self: InputGradient, model: Classifier, batch: Batch, noise: Noise) -> object:
        done.extend(batch.ids)
        return compute(self, model, batch, noise)

    monkeypatch.setattr(InputGradient, "__call__", counted)
    assert run(write_spec, write_profile, methods=["gradient", "gradient_x_input"]) == OK
    assert len(done) == len(set(done)) == 24


def test_a_plan_counts_shared_work_once(
    write_spec: Write, write_profile: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write_spec(methods=["gradient", "gradient_x_input", {"name": "gradient", "id": "label", "target": "label"}])
    assert main(["plan", str(spec), "--json", "--profile", str(write_profile())]) == OK
    stages = json.loads(capsys.readouterr().out)["stages"]
    (attribute,) = [one for one in stages if one["stage"] == "attribute"]
    assert (attribute["cost"]["forwards"], attribute["samples"]) == (80, 120)

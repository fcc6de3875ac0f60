"""Maps and samples that are not as they should be, in whole jobs: what is stored of them, and what is averaged."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from jobs.cli import FAILED, OK, main
from pipeline.contracts import Batch
from pipeline.data import Dataset, build_index
from pipeline.data.digits import Digits
from pipeline.methods import Random
from pipeline.models import Classifier, ModelConfig, load_classifier
from pipeline.noise import Noise
from pipeline.stages.column import tensor_array
from pipeline.store import Output, open_output

SAMPLES = 24
ZERO, CONSTANT, BROKEN = 3, 4, 5
"""Positions at which `random` gives a map of zeros, one of the same number everywhere, and one that is not finite."""
GRID = 8
DELETION = {"name": "deletion", "step": 128}
FEW = {"name": "infidelity", "id": "few", "draws": 3, "samples": 7}
LABEL = {"name": "gradient_x_input", "id": "label", "target": "label"}


@dataclass(frozen=True)
class Place:
    """A folder with a spec and the output of its runs."""

    folder: Path

    @property
    def output(self) -> Output:
        return open_output(self.folder / "out")

    def run(self, metrics: Sequence[object], *arguments: str, passes: int = 2000, **changes: object) -> int:
        """Runs a job in this process and returns its exit code."""
        spec: dict[str, object] = {
            "version": 1,
            "name": "edge",
            "output": str(self.folder / "out"),
            "dataset": {"source": "digits", "limit": SAMPLES},
            "models": [{"name": "mnist_cnn2", "weights": "random"}],
            "methods": ["gradient_x_input"],
            "metrics": metrics,
            "report": {"samples": 1},
            **changes,
        }
        (self.folder / "spec.yaml").write_text(yaml.safe_dump(spec))
        profile = {"executor": "local", "in_flight": 2, "rows": 8, "unit_passes": passes}
        (self.folder / "profile.yaml").write_text(yaml.safe_dump(profile))
        return main(["run", str(self.folder / "spec.yaml"), "--profile", str(self.folder / "profile.yaml"), *arguments])

    def rows(self, method: str, metric: str) -> dict[int, dict[str, Any]]:
        """The stored scores of a method by a metric of one measure, by position."""
        rows = self.output.scores(method=method, metric=metric).to_pylist()
        found = {row["position"]: row for row in rows}
        assert len(found) == len(rows)
        return found

    def summary(self, method: str, metric: str) -> dict[str, Any]:
        """The summary of a method by a metric of one measure."""
        (found,) = [one for one in self.output.run()["summary"] if (one["method"], one["metric"]) == (method, metric)]
        return dict(found)


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A finished job in which `random` gives some maps that no metric can make much of."""
    draw = Random.__call__

    def some_broken(self: Random, model: Classifier, batch: Batch, noise: Noise) -> Tensor:
        maps = draw(self, model, batch, noise).clone()
        for row, name in enumerate(batch.ids):
            number = int(name.rpartition("/")[2]) // 5
            if number in (ZERO, CONSTANT):
                maps[row] = 0.0 if number == ZERO else 0.25
            elif number == BROKEN:
                maps[row, 0, 0, 0] = torch.nan
        return maps

    place = Place(tmp_path_factory.mktemp("job"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Random, "__call__", some_broken)
        metrics = [DELETION, {"name": "mar", "grid": GRID}, {"name": "infidelity", "draws": 3}, FEW]
        place.run(metrics, methods=["random", "gradient_x_input", LABEL], max_failed_share=0.5)
    return place


def test_a_constant_map_has_no_score_and_is_counted_as_missing(job: Place) -> None:
    for metric in ("deletion", "mar"):
        rows = job.rows("random", metric)
        nothing = {position for position, row in rows.items() if row["value"] is None}
        assert nothing == {ZERO, CONSTANT}
        assert all(rows[position]["curve"] is None for position in nothing)
        values = [row["value"] for row in rows.values() if row["value"] is not None]
        summary = job.summary("random", metric)
        assert (summary["n"], summary["missing"]) == (SAMPLES - 3, 2)
        assert summary["mean"] == pytest.approx(np.mean(values), rel=1e-6)


def test_a_mean_curve_leaves_constant_maps_out(job: Place) -> None:
    curves = [row["curve"] for row in job.rows("random", "deletion").values() if row["curve"] is not None]
    assert len(curves) == SAMPLES - 3
    np.testing.assert_allclose(job.summary("random", "deletion")["curve"], np.mean(curves, axis=0), rtol=1e-5)


def test_a_constant_map_has_a_score_where_its_values_count_and_not_their_order(job: Place) -> None:
    rows = job.rows("random", "infidelity")
    assert all(row["value"] is not None for row in rows.values())
    assert job.summary("random", "infidelity")["missing"] == 0


def test_a_map_that_is_not_finite_is_a_failure_and_no_score(job: Place) -> None:
    (path,) = [
        one["path"] for one in job.output.run()["variants"] if one["method"] == "random" and one["metric"] is None
    ]
    (failure,) = job.output.failures([path]).to_pylist()
    assert (failure["position"], failure["reason"]) == (BROKEN, "random: the map is not finite")
    for metric in ("deletion", "mar", "infidelity"):
        assert job.rows("random", metric).keys() == set(range(SAMPLES)) - {BROKEN}
        assert job.rows("gradient_x_input", metric).keys() == set(range(SAMPLES))


@torch.no_grad()
def test_a_sample_that_is_predicted_wrongly_has_a_ratio_only_where_a_share_is_predicted_as_its_label(
    job: Place,
) -> None:
    model = load_classifier(ModelConfig(name="mnist_cnn2", weights="random"), classes=10)
    digits = Digits(limit=SAMPLES)
    images = Dataset(digits, build_index(digits), 0).load(range(SAMPLES)).images.float() / 255
    table = job.output.maps(method="label").to_table().sort_by("position")
    maps = table["map"].combine_chunks().to_numpy_ndarray()
    labels, predicted = table["label"].to_pylist(), model(images).argmax(1).tolist()
    found, deleted = job.rows("label", "mar"), job.rows("label", "deletion")
    without = set()
    for position, (image, relevance, label) in enumerate(zip(images, maps, labels, strict=True)):
        order = np.argsort(-relevance.ravel(), kind="stable")
        expected = None
        for share in range(1, GRID + 1):
            shown = torch.zeros(3, 32 * 32)
            kept = order[: 32 * 32 * share // GRID].copy()
            shown[:, kept] = image.reshape(3, -1)[:, kept]
            if model(shown.view(1, 3, 32, 32)).argmax().item() == label:
                expected = share / GRID
                break
        without |= {position} if expected is None else set()
        assert found[position]["value"] == expected
        clean = model(image[None]).softmax(1)[0, label].item()
        assert deleted[position]["value"] is not None
        assert deleted[position]["curve"][0] == pytest.approx(clean, rel=1e-4)
    wrong = {position for position in range(SAMPLES) if predicted[position] != labels[position]}
    assert without and without <= wrong and wrong != set(range(SAMPLES))
    summary = job.summary("label", "mar")
    assert (summary["n"], summary["missing"]) == (SAMPLES - len(without), len(without))


@pytest.mark.parametrize("passes", [1, 10**6], ids=["one sample a unit", "one unit"])
def test_a_metric_of_some_samples_looks_at_the_same_whatever_the_units(job: Place, place: Place, passes: int) -> None:
    assert place.run([FEW], passes=passes) == OK
    found, expected = place.rows("gradient_x_input", "few"), job.rows("gradient_x_input", "few")
    assert len(expected) == 7 and found.keys() == expected.keys()
    for position, row in expected.items():
        assert found[position]["value"] == pytest.approx(row["value"], rel=1e-2, abs=1e-6)
    assert place.summary("gradient_x_input", "few")["n"] == 7


def test_the_samples_of_a_metric_are_drawn_with_the_seed_and_are_the_same_for_all_methods(
    job: Place, place: Place
) -> None:
    drawn = job.rows("gradient_x_input", "few").keys()
    assert job.rows("label", "few").keys() == drawn
    # One without a map is left out, and no other takes its place.
    assert job.rows("random", "few").keys() == drawn - {BROKEN}
    every = job.rows("gradient_x_input", "infidelity")
    assert all(job.rows("gradient_x_input", "few")[one]["value"] == every[one]["value"] for one in drawn)
    assert place.run([FEW], seed=1) == OK
    assert len(place.rows("gradient_x_input", "few")) == 7 and place.rows("gradient_x_input", "few").keys() != drawn


def test_where_no_sample_is_right_the_run_says_so_and_makes_a_page(
    job: Place, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = [row["id"] for row in job.output.predictions().to_pylist() if not row["correct"]]
    metrics = [DELETION, "insertion", "mar", "morf", FEW, "max_sensitivity", "runtime", "sanity_parameters"]
    dataset = {"source": "digits", "ids": wrong[:5], "select": "correct"}
    assert place.run(metrics, "--json", dataset=dataset) == OK
    told = capsys.readouterr()
    assert "mnist_cnn2: select: correct keeps none of its samples, nothing is explained" in told.err
    result = json.loads(told.out)
    assert (result["status"], result["failures"]) == ("done", 0)
    page = (place.folder / "out" / result["page"]).read_text()
    assert "none of its scores could be computed" in page and "No maps to show" in page
    assert place.output.scores().num_rows == 0 and place.output.run()["summary"] == []


def test_an_image_without_the_object_has_no_score_and_one_whose_mask_is_not_known_is_a_failure(place: Place) -> None:
    images = Dataset(Digits(), build_index(Digits()), 0).load(range(5)).images.permute(0, 2, 3, 1).numpy()
    objects = images[..., 0] > 127
    objects[1] = False
    masks = [as_png(one * np.uint8(255)) for one in objects]
    cells = [{"bytes": as_png(image), "path": None} for image in images]
    table = {"id": list("abcde"), "image": cells, "label": [0] * 5, "mask": [*masks[:3], None, masks[4]]}
    pq.write_table(pa.table(table), place.folder / "masks.parquet")
    dataset = {"source": "parquet", "path": str(place.folder / "masks.parquet"), "mask_column": "mask"}
    assert place.run(["pointing", DELETION], dataset=dataset, max_failed_share=0.5) == OK
    pointing = place.rows("gradient_x_input", "pointing")
    assert {position: row["value"] is None for position, row in pointing.items()} == {
        0: False, 1: True, 2: False, 4: False,
    }  # fmt: skip
    assert len(place.rows("gradient_x_input", "deletion")) == 5
    summary = place.summary("gradient_x_input", "pointing")
    assert (summary["n"], summary["missing"]) == (3, 1)
    failures = place.output.failures(one["path"] for one in place.output.run()["variants"]).to_pylist()
    assert [(one["position"], one["stage"], one["reason"]) for one in failures] == [
        (3, "scores", "pointing: the mask is null")
    ]


def test_maps_of_another_size_in_the_store_lose_their_units_with_a_reason(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = ["gradient_x_input", "random"]
    assert place.run([], methods=methods) == OK
    output = place.output
    variants = [one for one in output.run()["variants"] if one["stage"] == "attribute"]
    (path,) = [one["path"] for one in variants if one["method"] == "random"]
    table = output.read(path)
    assert table is not None
    smaller = tensor_array(torch.zeros(SAMPLES, 1, 16, 16))
    table = table.set_column(table.column_names.index("map"), "map", smaller)
    output.forget(path)
    output.commit(path, 0, SAMPLES, table, [], table["id"].to_pylist())
    capsys.readouterr()
    assert place.run([{"name": "mar", "grid": GRID}], methods=methods) == FAILED
    told = capsys.readouterr().err
    assert f"{path}: maps of (1, 16, 16), the images are 32 × 32" in told.replace("\n", " ")
    assert place.rows("random", "mar") == {} and len(place.rows("gradient_x_input", "mar")) == SAMPLES

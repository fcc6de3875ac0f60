"""What a spec means: defaults, sweeps, overrides, paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.problem import SpecError
from jobs.spec import JobSpec, built_in_specs, load_spec
from pipeline.methods import AGI, Gradient, IntegratedGradients
from pipeline.metrics import MAR

SPEC = """\
version: 1
name: a
output: out
dataset:
  source: parquet
  path: data/test.parquet
models:
  - {name: cifar_resnet20, weights: weights/net.safetensors}
  - {name: resnet18, weights: IMAGENET1K_V1, id: big}
methods:
  - gradient
  - {name: integrated_gradients, steps: 5}
  - {name: agi, sweep: {classes: [1, 5], steps: [2, 20]}}
metrics: [mar]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec in a folder of its own, and a current directory elsewhere."""
    (tmp_path / "specs").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    file = tmp_path / "specs" / "a.yaml"
    file.write_text(SPEC)
    return file


def test_a_bare_name_means_the_defaults(file: Path) -> None:
    spec = load_spec(file)
    assert (spec.methods[0].id, spec.methods[0].config) == ("gradient", Gradient())
    assert (spec.metrics[0].id, spec.metrics[0].config) == ("mar", MAR())


def test_parameters_stand_beside_the_name(file: Path) -> None:
    assert load_spec(file).methods[1].config == IntegratedGradients(steps=5)


def test_a_sweep_is_every_combination_named_by_its_values(file: Path) -> None:
    swept = {method.id: method.config for method in load_spec(file).methods[2:]}
    assert swept == {
        "agi[classes=1,steps=2]": AGI(classes=1, steps=2),
        "agi[classes=1,steps=20]": AGI(classes=1, steps=20),
        "agi[classes=5,steps=2]": AGI(classes=5, steps=2),
        "agi[classes=5,steps=20]": AGI(classes=5, steps=20),
    }


def test_a_sweep_with_an_id_of_its_own_begins_with_it(file: Path) -> None:
    spec = load_spec(file, ["methods=[{name: agi, id: few, sweep: {classes: [1, 2]}}]"])
    assert [method.id for method in spec.methods] == ["few[classes=1]", "few[classes=2]"]


def test_paths_in_the_file_start_at_its_folder(file: Path) -> None:
    spec = load_spec(file)
    assert spec.dataset.path == str(file.parent / "data/test.parquet")
    assert spec.models[0].weights == str(file.parent / "weights/net.safetensors")


def test_paths_given_by_set_and_the_output_start_at_the_current_directory(file: Path) -> None:
    spec = load_spec(file, ["dataset.path=x.parquet", "models.0.weights=../y.pt"])
    assert spec.dataset.path == str(Path.cwd() / "x.parquet")
    assert spec.models[0].weights == str(Path.cwd().parent / "y.pt")
    assert spec.output == str(Path.cwd() / "out")


def test_uris_and_published_names_are_left_alone(file: Path) -> None:
    spec = load_spec(file, ["dataset.path=s3://bucket/x.parquet", "output=gs://bucket/runs"])
    assert spec.dataset.path == "s3://bucket/x.parquet"
    assert spec.output == "gs://bucket/runs"
    assert spec.models[1].weights == "IMAGENET1K_V1"


def test_a_tilde_is_the_home_folder(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(file.parent))
    assert load_spec(file, ["dataset.path=~/x.parquet"]).dataset.path == str(file.parent / "x.parquet")


def test_a_default_path_starts_at_the_folder_of_the_spec_too(file: Path) -> None:
    assert load_spec(file, ["dataset={source: mnist}"]).dataset.root == str(Path.cwd() / "data")
    file.write_text(SPEC.replace("source: parquet\n  path: data/test.parquet", "source: mnist"))
    assert load_spec(file).dataset.root == str(file.parent / "data")


def test_paths_of_a_built_in_spec_start_at_the_current_directory(file: Path) -> None:
    del file
    assert load_spec("cifar10").dataset.path == str(Path.cwd() / "data/cifar10/test.parquet")


def test_a_file_goes_before_a_built_in_spec_of_the_same_name(file: Path) -> None:
    Path("quickstart").write_text(file.read_text())
    assert load_spec("quickstart").name == "a"


def test_set_changes_one_key(file: Path) -> None:
    spec = load_spec(file, ["methods.1.steps=7", "models.1.id=large", "seed=3"])
    assert spec.methods[1].config == IntegratedGradients(steps=7)
    assert (spec.models[1].id, spec.seed) == ("large", 3)


def test_set_adds_keys_and_whole_mappings(file: Path) -> None:
    spec = load_spec(file, ["dataset.limit=8", "report.samples=2", "models.0.mean=[0.1, 0.2, 0.3]"])
    assert (spec.dataset.limit, spec.report.samples) == (8, 2)
    assert spec.models[0].mean == (0.1, 0.2, 0.3)


def test_set_gives_a_bare_name_parameters(file: Path) -> None:
    assert load_spec(file, ["methods.0.reduction=abs_sum"]).methods[0].config == Gradient(reduction="abs_sum")
    assert load_spec(file, ["metrics.0.grid=9"]).metrics[0].config == MAR(grid=9)


def test_what_set_adds_is_its_own_mistake(file: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(str(file), ["foo.bar=20"])
    assert str(caught.value).startswith("--set foo.bar=20: foo: unknown key")


def test_the_last_of_two_settings_counts(file: Path) -> None:
    assert load_spec(file, ["seed=1", "seed=2"]).seed == 2


def test_set_replaces_a_list(file: Path) -> None:
    assert [method.id for method in load_spec(file, ["methods=[random, gradient]"]).methods] == [
        "random",
        "gradient",
    ]


@pytest.mark.parametrize(
    ("written", "step_size"), [("1e-3", 0.001), ("1.5E-2", 0.015), (".5", 0.5), ("1", 1.0), ("+0.25", 0.25)]
)
def test_numbers_are_those_of_yaml_1_2(file: Path, written: str, step_size: float) -> None:
    (method,) = load_spec(file, [f"methods=[{{name: agi, step_size: {written}}}]"]).methods
    assert method.config == AGI(step_size=step_size)


@pytest.mark.parametrize("word", ["no", "on", "2024-05-01", "12:30", "y"])
def test_words_that_yaml_1_1_reads_otherwise_are_text(file: Path, word: str) -> None:
    assert load_spec(file, [f"dataset.ids=[{word}]"]).dataset.ids == (word,)


def test_an_alias_repeats_a_value(file: Path) -> None:
    file.write_text(SPEC + "report: &a {samples: 3}\n")
    assert load_spec(file, ["methods=[{name: agi, steps: &n 3, classes: *n}]"]).methods[0].config == AGI(
        steps=3, classes=3
    )


def test_a_later_problem_finds_its_line(file: Path) -> None:
    spec = load_spec(file, ["dataset.limit=3"])
    assert str(spec.problem(("methods", 1, "config", "steps"), "no")) == f"{file}:12: methods[1].steps: no"
    assert str(spec.problem(("models", 1, "weights"), "no")) == f"{file}:9: models[1].weights: no"
    assert str(spec.problem(("dataset", "limit"), "no")) == "--set dataset.limit=3: dataset.limit: no"


def test_a_later_problem_of_a_swept_entry_leads_to_the_sweep(file: Path) -> None:
    problem = load_spec(file).problem(("methods", 4, "config", "classes"), "no")
    assert str(problem) == f"{file}:13: methods[2].sweep.classes[1]: no"


def test_a_spec_survives_its_json(file: Path) -> None:
    spec = load_spec(file)
    again = JobSpec.model_validate_json(spec.model_dump_json())
    assert again.model_dump() == spec.model_dump()
    assert again.methods[2].config == AGI(classes=1, steps=2)


def test_problems_are_told_in_the_order_of_the_file(file: Path) -> None:
    file.write_text(SPEC.replace("version: 1", "version: 3") + "seed: x\nreport: 5\n")
    with pytest.raises(SpecError) as caught:
        load_spec(file, ["nonsense=1"])
    assert [problem.line for problem in caught.value.problems] == [1, 15, 16, None]


@pytest.mark.parametrize("name", built_in_specs())
def test_the_built_in_specs_load(name: str) -> None:
    spec = load_spec(name)
    assert spec.name == name.rpartition("/")[2]
    if "/" not in name:
        assert len(spec.methods) == (27 if name.startswith("methods-") else 6)
        assert len(spec.metrics) == 3


def test_the_quickstart_retrains_networks_for_three_of_its_methods_and_random() -> None:
    spec = load_spec("quickstart")
    assert spec.retrain is not None and spec.retrain.kind == "roar"
    assert len(set(spec.retrain.methods)) == 4 and set(spec.retrain.methods) <= {one.id for one in spec.methods}
    assert "random" in spec.retrain.methods
    assert (len(spec.retrain.fractions), spec.retrain.repeats) == (5, 3)

"""Profiles by name or file, and every mistake in one as a line with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.profile import Profile
from jobs.problem import SpecError
from jobs.profile import PROFILES, load_profile


@pytest.mark.parametrize("name", [file.stem for file in PROFILES.glob("*.yaml")])
def test_every_profile_that_comes_along_loads(name: str) -> None:
    assert isinstance(load_profile(name), Profile)


def test_a_file_of_ones_own_changes_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("executor: local\nrows: 7\n")
    assert load_profile(str(file)) == Profile(executor="local", rows=7)
    file.write_text("# nothing\n")
    assert load_profile(str(file)) == Profile()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("- executor\n- local\n", ["mine.yaml:1: expected keys such as executor and workers, got a list of 2"]),
        ("local\n", ["mine.yaml:1: expected keys such as executor and workers, got 'local'"]),
        ("executor: [ray\n", ["mine.yaml:2: not valid YAML"]),
        ("rows: 1\nrows: 2\n", ["mine.yaml:2: rows: this key stands twice"]),
        (
            "executor: rai\nworkrs: 2\n",
            [
                "mine.yaml:1: executor: expected one of ray, local, got 'rai'; did you mean 'ray'?",
                "mine.yaml:2: workrs: unknown key; did you mean 'workers'?",
            ],
        ),
        (
            "\nworkers: two\nretries: -1\naddress: 7\nrows: [1]\ncpus_per_worker: '2'\n",
            [
                "mine.yaml:2: workers: expected a whole number of at least 1 or a mapping, got 'two'",
                "mine.yaml:3: retries: expected a whole number of at least 0, got -1",
                "mine.yaml:4: address: expected text, got 7; put it in quotes",
                "mine.yaml:5: rows: expected a whole number of at least 1, got a list of 1",
                "mine.yaml:6: cpus_per_worker: expected a number above 0, got '2'; take the quotes off",
            ],
        ),
        (
            "workers: {min: 3, max: 2}\nwait_s: -1\nmemory_mb_per_worker: 4GB\n",
            [
                "mine.yaml:1: workers.max: max is to be at least min, got 3 and 2",
                "mine.yaml:2: wait_s: expected a number of at least 0, got -1",
                "mine.yaml:3: memory_mb_per_worker: expected a whole number of at least 1, got '4GB'",
            ],
        ),
        (
            "workers:\n  min: 0\n  mx: 4\n",
            [
                "mine.yaml:1: workers.max: missing; expected a whole number of at least 1",
                "mine.yaml:2: workers.min: expected a whole number of at least 1, got 0",
                "mine.yaml:3: workers.mx: unknown key for workers; did you mean 'max'?",
            ],
        ),
    ],
)
def test_a_mistake_is_one_line_with_file_and_line(
    text: str, lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        load_profile("mine.yaml")
    found = str(caught.value).splitlines()
    assert len(found) == len(lines), found
    assert all(line.startswith(start) for line, start in zip(found, lines, strict=True)), found


def test_an_unknown_profile_is_met_with_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"^--profile: no profile or file 'laptp'; did you mean 'laptop'\?$"):
        load_profile("laptp")

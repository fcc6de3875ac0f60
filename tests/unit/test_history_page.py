"""The page of trends: a line a method, in its place on a scale of time and value, and nothing that runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from html_page import Page
from synthetic_rerun import write_rerun

from jobs.cli import OK, main
from pipeline.report import build_history
from pipeline.report.trend import HEIGHT, WIDTH
from pipeline.stages.summarise import Summary
from pipeline.store import Output

MARGIN = 6
"""Of a drawing, to each side."""


def day(number: int) -> str:
    return f"202601{number:02d}T000000.000000Z-weekly"


def figure_of(method: str, mean: float, half: float | None = 0.1, metric: str = "mar", n: int = 40) -> Summary:
    ends = (None, None) if half is None else (mean - half, mean + half)
    return Summary("net", method, metric, metric, False, n, 0, mean, *ends, (), ())


def history(folder: Path, runs: Mapping[int, list[Summary]], **changes: Any) -> Output:
    """Runs by the day of January on which they began; changes may tell `fingerprints` and `lengths` by day."""
    for number, figures in runs.items():
        variants = [
            {"path": f"scores/{one.method}", "stage": "evaluate", "model": "net", "method": one.method}
            | {"metric": one.metric, "total": changes.get("lengths", {}).get(number, 40)}
            | {"fingerprint": changes.get("fingerprints", {}).get(number, "f0")}
            for one in figures
        ]
        kept = {name: value for name, value in changes.items() if name not in ("fingerprints", "lengths")}
        output = write_rerun(folder, {}, run=day(number), further=figures, variants=variants, **kept)
    return output


def page(output: Output) -> Page:
    return Page(output.read_bytes(build_history(output)).decode())


def points(text: str | None) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, _, y in (pair.partition(",") for pair in (text or "").split())]


def test_time_goes_across_and_values_go_up_to_scale(tmp_path: Path) -> None:
    runs = {1: [figure_of("agi", 0.5)], 2: [figure_of("agi", 0.9)], 5: [figure_of("agi", 0.7)]}
    (line,) = page(history(tmp_path, runs)).attributes("polyline")
    inner = WIDTH - 2 * MARGIN
    # The lowest end is 0.4, the highest 1.0.
    heights = [HEIGHT - MARGIN - (mean - 0.4) / 0.6 * (HEIGHT - 2 * MARGIN) for mean in (0.5, 0.9, 0.7)]
    across = [MARGIN, MARGIN + inner / 4, MARGIN + inner]
    assert points(line["points"]) == [
        (pytest.approx(x, abs=0.05), pytest.approx(y, abs=0.05)) for x, y in zip(across, heights, strict=True)
    ]


def test_the_band_goes_along_the_upper_ends_and_back_along_the_lower(tmp_path: Path) -> None:
    output = history(tmp_path, {1: [figure_of("agi", 0.5)], 2: [figure_of("agi", 0.9)]})
    (band,) = page(output).attributes("polygon")
    low, high, top, bottom = MARGIN, WIDTH - MARGIN, MARGIN, HEIGHT - MARGIN
    share = 0.2 / 0.6 * (HEIGHT - 2 * MARGIN)
    expected = [(low, bottom - share), (high, top), (high, top + share), (low, bottom)]
    assert points(band["points"]) == [(x, pytest.approx(y, abs=0.05)) for x, y in expected]


def test_methods_of_a_table_are_drawn_to_one_scale_each_about_its_middle(tmp_path: Path) -> None:
    runs = {
        1: [figure_of("agi", 0.5), figure_of("gradient", 7.0)],
        2: [figure_of("agi", 0.9), figure_of("gradient", 7.2)],
    }
    agi, gradient = (points(one["points"]) for one in page(history(tmp_path, runs)).attributes("polyline"))
    climbed, half = agi[0][1] - agi[1][1], gradient[0][1] - gradient[1][1]
    assert climbed == pytest.approx(2 * half, abs=0.3) and half > 10
    assert sum(y for _, y in gradient) / 2 == pytest.approx(HEIGHT / 2, abs=0.1)


def test_a_run_without_the_figure_parts_the_line(tmp_path: Path) -> None:
    other = figure_of("gradient", 0.4)
    runs = {number: [other, figure_of("agi", 0.5)] for number in (1, 2, 4, 5)} | {3: [other]}
    lines = page(history(tmp_path, dict(sorted(runs.items())))).attributes("polyline")
    assert sorted(len(points(one["points"])) for one in lines) == [2, 2, 5]


def test_a_run_that_was_stopped_does_not_part_it(tmp_path: Path) -> None:
    runs = {1: [figure_of("agi", 0.5)], 2: [], 3: [figure_of("agi", 0.6)]}
    found = page(history(tmp_path, runs))
    (line,) = found.attributes("polyline")
    assert len(points(line["points"])) == 2 and day(2) in found.text


def test_a_ring_is_a_run_with_something_new_behind_the_figure(tmp_path: Path) -> None:
    runs = {number: [figure_of("agi", 0.5)] for number in (1, 2, 3, 4)}
    found = page(history(tmp_path, runs, fingerprints={3: "f1", 4: "f1"}))
    assert [one["fill"] == "var(--page)" for one in found.attributes("circle")] == [True, False, True, False]


def marks(found: Page) -> list[str]:
    """What stands for each run, in the order of time."""
    kinds = {"rect": "square", "circle": "dot"}
    shapes = [(kinds[name], one) for name, one in found.tags if name in kinds]
    return ["ring" if kind == "dot" and one["fill"] == "var(--page)" else kind for kind, one in shapes]


def test_a_square_is_a_run_over_more_or_fewer_samples_of_the_same(tmp_path: Path) -> None:
    counts = {1: 24, 2: 40, 3: 60, 4: 60, 5: 24}
    runs = {day: [figure_of("agi", 0.5, n=n)] for day, n in counts.items()}
    found = page(history(tmp_path, runs, lengths=counts))
    assert marks(found) == ["ring", "square", "square", "dot", "square"]
    assert "A square is over more or fewer samples of the same data" in found.text
    (drawing,) = found.attributes("svg")
    assert drawing["aria-label"] == (
        "agi over 5 runs: 0.500 (n 24), 0.500 (n 40), 0.500 (n 60), 0.500 (n 60), 0.500 (n 24)"
    )


def test_a_square_stands_on_its_place(tmp_path: Path) -> None:
    runs = {1: [figure_of("agi", 0.5)], 2: [figure_of("agi", 0.9, n=60)]}
    (square,) = page(history(tmp_path, runs)).attributes("rect")
    half = float(square["width"] or 0) / 2
    assert square["width"] == square["height"]
    assert float(square["x"] or 0) + half == pytest.approx(WIDTH - MARGIN, abs=0.05)


def test_other_samples_are_told_also_where_a_metric_looks_at_as_many(tmp_path: Path) -> None:
    runs = {day: [figure_of("agi", mean, n=16)] for day, mean in ((1, 0.5), (2, 0.6))}
    assert marks(page(history(tmp_path, runs, lengths={1: 40, 2: 80}))) == ["ring", "square"]


def test_rows_that_were_computed_again_and_came_out_otherwise_are_a_ring(tmp_path: Path) -> None:
    runs = {1: [figure_of("agi", 0.5)], 2: [figure_of("agi", 0.6)], 3: [figure_of("agi", 0.6, half=0.2)]}
    # The interval alone is drawn anew with another seed.
    assert marks(page(history(tmp_path, runs))) == ["ring", "ring", "dot"]


def test_how_many_samples_are_behind_two_means_is_told_where_they_are_not_as_many(tmp_path: Path) -> None:
    def text(*counts: int) -> str:
        runs = {day: [figure_of("agi", 0.5, n=n)] for day, n in enumerate(counts, 1)}
        return page(history(tmp_path / "-".join(map(str, counts)), runs)).text

    # Since the run before, and since the first.
    assert "0.000 n 1,200 to 60 0.000 n 40 to 60" in text(40, 1200, 60)
    assert "0.000 n 60 to 40 0.000 Runs" in text(40, 60, 40)
    assert "0.000 0.000 Runs" in text(40, 40)


def test_one_run_is_a_point_in_the_middle_with_its_interval(tmp_path: Path) -> None:
    found = page(history(tmp_path, {1: [figure_of("agi", 0.5)]}))
    (circle,) = found.attributes("circle")
    assert (circle["cx"], circle["cy"]) == (str(WIDTH / 2), str(HEIGHT / 2))
    assert not found.attributes("polyline") and not found.attributes("polygon")
    assert len(found.attributes("line")) == 1


def test_a_figure_that_never_moves_and_has_no_interval_is_drawn(tmp_path: Path) -> None:
    found = page(history(tmp_path, {1: [figure_of("agi", 0.5, None)], 2: [figure_of("agi", 0.5, None)]}))
    (line,) = found.attributes("polyline")
    assert {y for _, y in points(line["points"])} == {HEIGHT / 2} and not found.attributes("polygon")


def test_the_latest_figure_and_its_changes_stand_beside_the_line(tmp_path: Path) -> None:
    runs = {1: [figure_of("agi", 0.5)], 2: [figure_of("agi", 0.9)], 3: [figure_of("agi", 0.7)]}
    found = page(history(tmp_path, runs))
    assert "agi 1 Jan 2026, 00:00: 0.500 (0.400 to 0.600), n 40" in found.text
    assert "0.700 0.600 to 0.800 −0.200 +0.200" in found.text
    (drawing,) = found.attributes("svg")
    assert drawing["aria-label"] == "agi over 3 runs: 0.500, 0.900, 0.700"


def test_a_method_that_the_latest_run_has_not_says_so(tmp_path: Path) -> None:
    runs = {1: [figure_of("agi", 0.5)], 2: [figure_of("gradient", 0.9)]}
    assert page(history(tmp_path, runs)).text.count("not in the latest run") == 1


def test_a_table_a_model_and_measure_and_the_control_last(tmp_path: Path) -> None:
    figures = [figure_of(method, 0.5, metric=metric) for method in ("random", "agi") for metric in ("mar", "deletion")]
    found = page(history(tmp_path, {1: [*figures, replace(figures[0], model="second")]}))
    tables = [one["aria-label"] for one in found.attributes("div")]
    assert tables == ["mar, net", "deletion, net", "mar, second", "Runs"]
    drawn = [str(one["aria-label"]).split()[0] for one in found.attributes("svg")]
    assert drawn == ["agi", "random", "agi", "random", "random"]


def test_a_run_is_linked_where_it_has_a_page(tmp_path: Path) -> None:
    output = history(tmp_path, {1: [figure_of("agi", 0.5)], 2: [figure_of("agi", 0.6)]})
    output.write_bytes(f"report/{day(2)}/index.html", b"")
    links = [str(one["href"]) for one in page(output).attributes("a")]
    assert [one for one in links if not one.startswith("#")] == [f"./{day(2)}/index.html"]


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    output = history(tmp_path, {1: [figure_of("agi", 0.5)], 2: [figure_of("agi", 0.6)]})
    first = output.read_bytes(build_history(output))
    assert output.read_bytes(build_history(output)) == first


def test_names_never_become_markup_and_nothing_runs_or_is_fetched(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script>'
    output = history(tmp_path / "<b>", {1: [figure_of(evil, 0.5, metric=evil)]}, status=evil)
    record = output.run(day(1))
    name = "20260102T000000.000000Z-javascript:x'\"><u>"
    output.write_bytes(f"runs/{name}.json", json.dumps({**record, "run": name}).encode())
    output.write_bytes(f"report/{name}/index.html", b"")
    found = page(output)
    assert not found.attributes("script") and not found.attributes("u") and not found.attributes("b")
    assert evil in found.text and name in found.text
    sources = [value for _, one in found.tags for key in ("src", "href") if (value := one.get(key))]
    assert sources and all(source.startswith(("data:", "#", "./2026")) for source in sources)


def test_a_record_that_cannot_be_read_is_a_row_that_says_so(tmp_path: Path) -> None:
    output = history(tmp_path, {1: [figure_of("agi", 0.5)]})
    output.write_bytes(f"runs/{day(2)}.json", b"{")
    output.write_bytes(f"runs/{day(3)}.json", b'{"variants": 3}')
    assert page(output).text.count("its record cannot be read") == 2


def test_of_many_runs_the_latest_are_shown(tmp_path: Path) -> None:
    output = history(tmp_path, {number: [figure_of("agi", 0.5)] for number in range(1, 6)})
    found = Page(output.read_bytes(build_history(output, most=3)).decode())
    assert "The latest 3; 2 earlier ones are left out here." in found.text
    assert day(2) not in found.text and day(3) in found.text


def test_an_output_without_runs_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    output = history(tmp_path / "out", {1: []})
    (tmp_path / "out" / "runs" / f"{day(1)}.json").unlink()
    text = page(output).text
    assert "No figures yet" in text and "No run yet." in text


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_writes_the_page_and_says_where(
    as_json: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history(tmp_path, {1: [figure_of("agi", 0.5)]})
    assert main(["history", str(tmp_path), "--page", *(["--json"] if as_json else [])]) == OK
    said = capsys.readouterr().out.strip()
    place = json.loads(said)["page"] if as_json else said
    assert place == str(tmp_path / "report" / "history.html") and Path(place).is_file()


def test_the_command_lists_the_best_method_of_each_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history(tmp_path, {1: [figure_of("random", 0.1), figure_of("agi", 0.5), figure_of("gradient", 0.4)]})
    assert main(["history", str(tmp_path)]) == OK
    assert "0.400 gradient" in capsys.readouterr().out
    assert not (tmp_path / "report").exists()

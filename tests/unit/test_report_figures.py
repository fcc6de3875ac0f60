"""Which method is best, which is no better than chance, and the curves."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from synthetic_output import figures

from pipeline.report.cost import duration, method_costs, metric_costs
from pipeline.report.curve_plot import curve_plots, curve_svg
from pipeline.report.faithfulness import Cell, faithfulness_tables, figure
from pipeline.report.markdown import summary_markdown
from pipeline.report.palette import Series, palette
from pipeline.report.record import RunRecord, Timing, VariantEntry
from pipeline.stages.summarise import Summary


def record(*summary: Summary, timings: tuple[Timing, ...] = ()) -> RunRecord:
    methods = dict.fromkeys(one.method for one in summary)
    variants = tuple(VariantEntry(path="", stage="attribute", model="net", method=one) for one in methods)
    return RunRecord(run="r", name="test", summary=summary, variants=variants, timings=timings)


def cells(*summary: Summary) -> dict[str, Cell]:
    table = faithfulness_tables(record(*summary))[0]
    rows = [*table.rows, *([table.control] if table.control else [])]
    return {row.method: row.cells[0] for row in rows}


SERIES = palette(["a"], None)["a"]


def drawn(curve: tuple[tuple[float, ...] | tuple[str, ...], tuple[float, ...], Series], name: str = "plot") -> str:
    return curve_svg([curve], name=name, vertical="score", horizontal="shares")


def texts(svg: str) -> list[str]:
    return [one.text or "" for one in ElementTree.fromstring(svg).iter("text")]


RANDOM = figures("random", 0.5, 0.45, 0.55)


def test_the_best_of_a_metric_is_its_lowest_where_lower_is_better() -> None:
    found = cells(RANDOM, figures("a", 0.3, 0.2, 0.4), figures("b", 0.1, 0.05, 0.2))
    assert [method for method, cell in found.items() if cell.best] == ["b"]


def test_the_best_of_a_metric_is_its_highest_where_higher_is_better() -> None:
    found = cells(figures("a", 0.3, 0.2, 0.4, metric="insertion"), figures("b", 0.1, 0.05, 0.2, metric="insertion"))
    assert [method for method, cell in found.items() if cell.best] == ["a"]


def test_the_control_is_never_the_best_and_stands_apart() -> None:
    table = faithfulness_tables(record(RANDOM, figures("a", 0.7, 0.6, 0.8), figures("b", 0.8, 0.7, 0.9)))[0]
    assert table.control is not None and not table.control.cells[0].best
    assert [row.method for row in table.rows] == ["a", "b"]


def test_a_single_method_is_not_called_the_best() -> None:
    assert not cells(RANDOM, figures("a", 0.1, 0.05, 0.2))["a"].best


@pytest.mark.parametrize(
    ("metric", "low", "high", "expected"),
    [
        ("deletion", 0.2, 0.4, ""),
        ("deletion", 0.4, 0.46, "not clearly better than random"),
        ("deletion", 0.6, 0.7, "worse than random"),
        ("insertion", 0.6, 0.7, ""),
        ("insertion", 0.54, 0.7, "not clearly better than random"),
        ("insertion", 0.2, 0.4, "worse than random"),
    ],
)
def test_a_method_beats_random_only_where_the_intervals_lie_apart(
    metric: str, low: float, high: float, expected: str
) -> None:
    control = figures("random", 0.5, 0.45, 0.55, metric=metric)
    assert cells(control, figures("a", (low + high) / 2, low, high, metric=metric))["a"].verdict == expected


def test_a_verdict_needs_a_measure_that_chance_is_a_yardstick_of() -> None:
    control, worse = (replace(one, against_chance=False) for one in (RANDOM, figures("a", 0.9, 0.8, 1.0)))
    assert cells(control, worse)["a"].verdict == ""


def test_without_a_control_nothing_is_said_about_chance() -> None:
    found = cells(figures("a", 0.5, 0.4, 0.6), figures("b", 0.5, 0.4, 0.6))
    assert {cell.verdict for cell in found.values()} == {""}


def test_the_control_is_known_by_its_configuration_not_its_id() -> None:
    renamed = figures("chance", 0.5, 0.45, 0.55)
    one = record(renamed, figures("a", 0.1, 0.05, 0.2)).model_copy(update={"programs": {"chance": "random"}})
    control = faithfulness_tables(one)[0].control
    assert control is not None and control.method == "chance"


def test_a_metric_without_any_value_says_so() -> None:
    empty = Summary("net", "a", "mar", "mar", False, 0, 40, None, None, None, (), ())
    cell = cells(empty)["a"]
    assert (cell.mean, cell.interval, cell.span) == ("no value", "", None)


def test_intervals_are_drawn_on_the_range_of_their_column() -> None:
    span = cells(figures("a", 0.1, 0.0, 0.2), figures("b", 0.8, 0.6, 1.0))["b"].span
    assert span is not None and (span.left, span.width, span.mean) == (60.0, 40.0, 80.0)


@pytest.mark.parametrize(
    ("value", "text"), [(0.12345, "0.123"), (0.0, "0.000"), (0.00012, "0.00012"), (12345.6, "1.23e+04")]
)
def test_figures_never_round_to_nothing(value: float, text: str) -> None:
    assert figure(value) == text


def test_markdown_marks_the_best_and_escapes_names() -> None:
    tables = faithfulness_tables(record(figures("a|b", 0.1, 0.05, 0.2), figures("c", 0.3, 0.2, 0.4)))
    text = summary_markdown("<x>", tables)
    assert r"| a\|b | **0.100** [0.050, 0.200] (40) |" in text and r"# \<x\>" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00002, "20 µs"), (0.0123, "12.3 ms"), (3.4, "3.4 s"), (307, "5 min 7 s"), (7380, "2 h 3 min")],
)
def test_durations_are_in_a_unit_that_suits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_cost_of_a_method_is_its_seconds_over_its_samples() -> None:
    timing = Timing(stage="attribute", model="net", method="a", samples=50, seconds=5.0)
    assert [row.seconds_a_sample for row in method_costs(record(timings=(timing,)))] == ["100 ms"]


def test_the_cost_of_a_metric_is_taken_over_all_methods() -> None:
    timings = tuple(
        Timing(stage="evaluate", model="net", method=method, metric="mar", samples=10, seconds=seconds)
        for method, seconds in (("a", 1.0), ("b", 3.0))
    )
    assert [row.seconds_a_sample for row in metric_costs(record(timings=timings))] == ["200 ms"]


def test_work_without_samples_has_no_cost() -> None:
    timing = Timing(stage="attribute", model="net", method="a", samples=0, seconds=1.0)
    assert method_costs(record(timings=(timing,))) == []


def test_every_method_has_a_look_of_its_own() -> None:
    looks = [(one.light, one.dash) for one in palette([f"m{number}" for number in range(24)], None).values()]
    assert len(set(looks)) == 24


def test_a_plot_is_an_svg_of_known_colours_without_names_from_data() -> None:
    plots = curve_plots(record(RANDOM, figures("$a<b", 0.3, 0.2, 0.4)), palette(["random", "$a<b"], "random"))
    drawing = ElementTree.fromstring(plots[0].svg)
    assert drawing.tag == "svg" and "$a" not in plots[0].svg
    assert {"var(--series-0)", "var(--series-control)"} <= set(plots[0].svg.replace(";", " ").split())


def test_the_legend_has_the_best_first() -> None:
    summary = (RANDOM, figures("a", 0.3, 0.2, 0.4), figures("b", 0.1, 0.05, 0.2))
    plots = curve_plots(record(*summary), palette(["a", "b", "random"], "random"))
    assert [entry.series.method for entry in plots[0].legend] == ["b", "a", "random"]


def test_each_measure_has_a_plot_of_its_own_curves() -> None:
    ssim = replace(RANDOM, measure="ssim", curve=(1.0, 0.2, 0.1), vertical="similarity", horizontal="blocks")
    plots = curve_plots(record(RANDOM, ssim, replace(RANDOM, measure="time", curve=())), palette(["random"], "random"))
    assert [plot.column.title for plot in plots] == ["deletion auc", "deletion ssim"]
    assert {"similarity", "blocks"} <= set(texts(plots[1].svg)) and "similarity" not in texts(plots[0].svg)


def test_the_axis_reaches_as_far_as_the_shares() -> None:
    assert [text for text in texts(drawn(((0.0, 0.02, 0.05), (1.0, 0.5, 0.2), SERIES))) if "." not in text] == [
        *"012345",
        "shares",
        "score",
    ]


def test_names_on_the_axis_are_written_in_their_order_and_escaped() -> None:
    found = drawn((("fc", "<b>", "$x"), (1.0, 0.5, 0.0), SERIES))
    assert [text for text in texts(found) if text in ("fc", "<b>", "$x")] == ["fc", "<b>", "$x"]
    assert "<b>" not in found


def test_of_many_names_some_are_written_with_their_ends() -> None:
    names = tuple(f"features.denseblock.layer{number:02}" for number in range(40))
    written = [text for text in texts(drawn((names, tuple(range(40)), SERIES))) if "layer" in text]
    assert written == [f"….denseblock.layer{number:02}" for number in range(0, 40, 3)]


def test_a_plot_is_the_same_bytes_each_time_and_its_ids_are_its_own() -> None:
    series = palette(["a"], None)["a"]
    first, again, other = (
        drawn(((0.0, 1.0), (1.0, 0.0), series), name=name) for name in ("plot-1", "plot-1", "plot-2")
    )
    assert first == again
    ids = [{one.get("id") for one in ElementTree.fromstring(svg).iter() if one.get("id")} for svg in (first, other)]
    assert ids[0] and not ids[0] & ids[1]

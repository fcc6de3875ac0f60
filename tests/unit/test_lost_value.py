"""A method that has no value any more, or for clearly fewer samples, got worse, whatever is left of its mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pytest
from synthetic_rerun import FIRST, SECOND, compared, only, opened, two, values, write_rerun

from jobs.cli import FAILED, OK, main
from jobs.notify import run_message
from jobs.plan import cached_index, index_name
from jobs.run import Result
from pipeline.data import build_index
from pipeline.data.dataset import Dataset
from pipeline.data.digits import Digits
from pipeline.part import Failed
from pipeline.report.change import FEWEST, MISSING, clear_loss
from pipeline.report.rerun import compare_runs
from pipeline.stages.summarise import Summary
from pipeline.store import Output

Capture = pytest.CaptureFixture[str]
Scores = Mapping[str, float | None]


def without(found: Scores, count: int) -> dict[str, float | None]:
    """Scores of which the first few are none."""
    return {name: None if place < count else value for place, (name, value) in enumerate(found.items())}


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        ((0, 20), (FEWEST - 1, 20), False),
        ((0, 20), (FEWEST, 20), True),
        ((0, 1000), (16, 1000), False),
        ((0, 1000), (20, 1000), True),
        ((300, 1000), (330, 1000), False),
        ((300, 1000), (360, 1000), True),
        ((20, 20), (20, 20), False),
        ((10, 20), (0, 20), False),
        ((0, 100_000), (int(MISSING * 100_000), 100_000), False),
        ((0, 0), (20, 20), False),
        ((0, 20), (0, 0), False),
        ((2, 20), (7, 70), False),
    ],
)
def test_a_loss_is_clear_past_one_per_cent_and_past_chance(
    before: tuple[int, int], after: tuple[int, int], lost: bool
) -> None:
    assert clear_loss(before, after) == lost


def test_a_figure_that_has_no_value_any_more_got_worse(tmp_path: Path) -> None:
    one = only(compared(*two(tmp_path, values(7), dict.fromkeys(values(7)))))
    assert (one.before_n, one.after_n, one.after, one.difference) == (7, 0, None, None)
    assert (one.before_missing, one.after_missing, one.shared) == (0, 7, 7)
    assert (one.note, one.verdict, one.regression) == ("no value in the second run", "worse", True)


def test_one_sample_is_enough_for_that(tmp_path: Path) -> None:
    assert only(compared(*two(tmp_path, values(1), dict.fromkeys(values(1))))).verdict == "worse"


@pytest.mark.parametrize("committed", [True, False])
def test_a_figure_that_had_no_value_has_lost_none(committed: bool, tmp_path: Path) -> None:
    nothing = dict.fromkeys(values(7))
    assert only(compared(*two(tmp_path / "both", nothing, nothing, committed=committed))).verdict == "unclear"
    one = only(compared(*two(tmp_path / "first", nothing, values(7), committed=committed)))
    assert (one.note, one.verdict) == ("no value in the first run", "unclear")


def test_samples_that_never_had_a_value_are_none_that_lost_it(tmp_path: Path) -> None:
    old = without(values(20), 3)
    one = only(compared(*two(tmp_path, old, dict.fromkeys(list(old)[:3]))))
    assert (one.shared, one.before_missing, one.after_missing) == (3, 3, 3)
    assert (one.after, one.verdict) == (None, "unclear")


def test_clearly_fewer_samples_with_a_value_are_worse_although_the_others_got_better(tmp_path: Path) -> None:
    one = only(compared(*two(tmp_path, values(40), without(values(40, shift=0.2), 10))))
    assert (one.pairs, one.shared, one.before_missing, one.after_missing) == (30, 40, 0, 10)
    assert one.low is not None and one.low > 0
    assert (one.lost, one.verdict) == (True, "worse")
    few = only(compared(*two(tmp_path / "few", values(40), without(values(40, shift=0.2), 5))))
    assert (few.lost, few.verdict) == (False, "better")


def test_a_longer_list_of_the_same_samples_has_lost_nothing(tmp_path: Path) -> None:
    """What the first run did not look at is not counted."""
    new = {name: None if int(name[1:]) >= 40 else value for name, value in values(80).items()}
    one = only(compared(*two(tmp_path, values(40), new)))
    assert (one.shared, one.after_missing, one.verdict) == (40, 0, "same")


def test_rows_that_cannot_be_paired_are_counted_by_the_records(tmp_path: Path) -> None:
    before, after = two(tmp_path, values(40), without(values(40), 20))
    after.forget("scores/model=net/method=agi/metric=deletion-f0")
    one = only(compared(before, after))
    assert (one.pairing, one.shared, one.after_missing, one.verdict) == ("unpaired", 0, 20, "worse")


def failed_maps(output: Output, run: str, names: list[str], failed: list[str], total: int) -> None:
    """Maps of samples, of which some failed, in a run's record."""
    path, record = "maps/model=net/method=agi-f0", output.run(run)
    kept = [name for name in names if name not in failed]
    table = pa.table({"position": [names.index(name) for name in kept], "id": kept})
    output.commit(path, 0, len(names), table, [Failed(names.index(name), name, "no map") for name in failed], names)
    entry = {"path": path, "stage": "attribute", "model": "net", "method": "agi", "metric": None, "total": total}
    record["variants"].append({**entry, "fingerprint": "f0"})
    output.write_bytes(f"runs/{run}.json", json.dumps(record).encode())


def test_samples_whose_maps_failed_count_as_lost(tmp_path: Path) -> None:
    found = values(40)
    names = list(found)
    before, after = two(tmp_path, found, dict(list(found.items())[8:]))
    # Past the run's own total another run of the output went on.
    failed_maps(before, FIRST, [*names, "x"], ["x"], total=41)
    failed_maps(after, SECOND, [*names, "x"], [*names[:8], "x"], total=40)
    one = only(compared(before, after))
    assert (one.pairs, one.shared, one.after_missing, one.verdict) == (32, 40, 8, "worse")


def test_samples_whose_maps_failed_before_as_well_are_not_lost(tmp_path: Path) -> None:
    names, left = list(values(40)), dict(list(values(40).items())[8:])
    before, after = two(tmp_path, left, left)
    for output, run in ((before, FIRST), (after, SECOND)):
        failed_maps(output, run, names, names[:8], total=40)
    one = only(compared(before, after))
    assert (one.shared, one.before_missing, one.after_missing, one.verdict) == (40, 8, 8, "same")


def test_a_figure_that_was_planned_and_is_not_there_got_worse(tmp_path: Path) -> None:
    before, after = two(tmp_path, values(20), values(20))
    record = after.run(SECOND)
    record["summary"] = []
    other = write_rerun(tmp_path / "b", {("gradient", "deletion"): values(20)}, run=SECOND).run(SECOND)
    record["summary"] += other["summary"]
    after.write_bytes(f"runs/{SECOND}.json", json.dumps(record).encode())
    rerun = compared(before, after)
    (one,) = rerun.changes
    assert (one.method, one.after, one.verdict, one.note) == ("agi", None, "worse", "no value in the second run")
    assert rerun.only_before == ()
    record["variants"] = other["variants"]
    after.write_bytes(f"runs/{SECOND}.json", json.dumps(record).encode())
    assert compared(before, after).only_before == (("net", "agi", "deletion", "auc"),)


def test_trainings_that_are_all_gone_are_worse(tmp_path: Path) -> None:
    def trained(n: int) -> Summary:
        ends = (0.3, 0.2, 0.4) if n else (None, None, None)
        return Summary(
            "net", "agi", "roar", "accuracy", False, n, 3 - n, *ends, (), (), by_sample=False, over="repeats"
        )

    before = write_rerun(tmp_path / "a", {}, further=[trained(3)])
    after = write_rerun(tmp_path / "b", {}, run=SECOND, further=[trained(0)])
    assert only(compared(before, after)).verdict == "worse"


def test_what_the_machine_has_a_part_in_may_be_unknown_on_another(tmp_path: Path) -> None:
    before, after = two(tmp_path, values(20), dict.fromkeys(values(20)), by_sample=False)
    record = before.run(FIRST)
    record["summary"][0]["by_sample"] = False
    before.write_bytes(f"runs/{FIRST}.json", json.dumps(record).encode())
    assert only(compared(before, after)).verdict == "unclear"
    assert only(compared(before, after, {"deletion": 0.1})).verdict == "worse"


def lossy(folder: Path, lost: int) -> Output:
    write_rerun(folder, {("agi", "mar"): values(20), ("gradient", "mar"): values(20)})
    new: dict[tuple[str, str], Any] = {("agi", "mar"): without(values(20), lost), ("gradient", "mar"): values(20)}
    return write_rerun(folder, new, run=SECOND, fingerprint="f1")


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (20, "0.483 → no value: no value in the second run"),
        (8, "0.483 → 0.483, 0.000 [0.000, 0.000], higher is better; 8 of 20 samples without a value, before 0"),
    ],
)
def test_exit_code_junit_and_webhook_tell_of_it(lost: int, message: str, tmp_path: Path, capsys: Capture) -> None:
    output = lossy(tmp_path / "out", lost)
    assert main(["compare", output.uri, "--junit", str(tmp_path / "a.xml")]) == FAILED
    text = capsys.readouterr().out
    assert text.splitlines()[-1].startswith("1 regression;")
    assert ("net agi mar auc: 8 of 20 samples without a value, before 0" in text) == (lost == 8)
    assert ("1 figure has no difference: no value in the second run." in text) == (lost == 20)
    (failure,) = [case[0] for case in ElementTree.parse(tmp_path / "a.xml").iter("testcase") if len(case)]
    assert (failure.tag, failure.attrib["message"]) == ("failure", message)
    told = run_message(output, Result("done", SECOND, None, 4, 0, 0))
    assert told["text"].endswith("; 1 regression")
    (one,) = told["regressions"]
    assert (one["method"], one["after_missing"], one["lost"]) == ("agi", lost, True)


def test_what_has_no_value_without_being_worse_is_skipped_in_junit(tmp_path: Path) -> None:
    nothing = dict.fromkeys(values(20))
    before, after = two(tmp_path, nothing, values(20))
    assert main(["compare", before.uri, after.uri, "--junit", str(tmp_path / "a.xml")]) == OK
    (case,) = ElementTree.parse(tmp_path / "a.xml").iter("testcase")
    assert (case[0].tag, case[0].attrib["message"]) == ("skipped", "no value → 0.483: no value in the first run")


@pytest.mark.parametrize("committed", [True, False])
def test_samples_of_units_that_were_given_up_count_as_lost(committed: bool, tmp_path: Path) -> None:
    """They have neither a row nor a failure; which they are the data set's list tells."""
    config = Digits()
    names = Dataset(config, build_index(config), 0).ids(0, 40)
    found = dict(zip(names, values(40).values(), strict=True))
    left = {name: found[name] for name in names[:30]}
    path = "scores/model=net/method=agi/metric=deletion-f0"
    lost = {"variant": path, "start": 30, "stop": 40, "reason": "crashed"}
    facts = {"lost": [lost], "seed": 0, "index": index_name(config), "dataset": config.model_dump()}
    before, after = two(tmp_path, found, left, **facts)
    cached_index(after, config)
    record = after.run(SECOND)
    (entry,) = record["variants"]
    after.write_bytes(f"runs/{SECOND}.json", json.dumps(record | {"variants": [entry | {"total": 40}]}).encode())
    if not committed:
        after.forget(path)
    one = only(compared(before, after, {"default": 0.5}))
    assert (one.after_missing, one.verdict, one.pairing) == (10, "worse", "paired" if committed else "unpaired")
    earlier = only(compare_runs(opened(after, SECOND), opened(before, FIRST), {"default": 0.5}))
    assert (earlier.lost, earlier.verdict) == (False, "same"), "the first run's losses are no regression"

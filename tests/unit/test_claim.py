"""A stretch of work is one run's, on any store, and nobody waits for a run that is gone."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline import claim
from pipeline.claim import Claims
from pipeline.errors import FatalError, RetryableError
from pipeline.neighbour import CLAIMS, EXPIRED, Neighbours, Seen, Stretch, sign
from pipeline.noise import Noise
from pipeline.store import Output, open_output

FIRST = Stretch("predictions/model=m-1", 0, 2048)


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return open_output(tmp_path / "out", create=True)


def claims(output: Output) -> Claims:
    """Claims that look again at each refusal, and say what they hold when asked to alone."""
    return Claims(output, every=3600, look_every=0)


def write(
    output: Output,
    run: str,
    *claimed: Stretch,
    place: str = "elsewhere",
    process: int = 1,
    silent: float = 0,
    **said: object,
) -> list[Path]:
    """The files of another run: its sign of life, and what it has taken or wants."""
    folder = Path(output.uri) / CLAIMS
    folder.mkdir(exist_ok=True)
    files = [folder / f"{run}.json"]
    content = {"place": place, "process": process, "ended": False, "clearing": False, **said}
    files[0].write_text(json.dumps(content))
    for stretch in claimed:
        key = hashlib.sha256(stretch.subject.encode()).hexdigest()[:16]
        files.append(folder / f"{run}@{stretch.start}-{stretch.stop}-{key}")
        files[-1].touch()
    for file in files:
        os.utime(file, (file.stat().st_atime, file.stat().st_mtime - silent))
    return files


def test_a_stretch_is_one_runs_until_it_is_given_back(output: Output) -> None:
    with claims(output) as one, claims(output) as other:
        assert one.take(FIRST) and one.take(FIRST) and not other.take(FIRST)
        one.give_back(FIRST)
        assert other.take(FIRST) and not one.take(FIRST)


def test_stretches_that_meet_exclude_each_other_and_others_do_not(output: Output) -> None:
    with claims(output) as one, claims(output) as other:
        assert one.take(Stretch("m", 1024, 2048))
        assert not other.take(Stretch("m", 0, 1025)) and not other.take(Stretch("m", 2047, 4096))
        assert other.take(Stretch("m", 0, 1024)) and other.take(Stretch("m", 2048, 4096))
        assert other.take(Stretch("another", 1024, 2048))


def test_many_runs_at_once_share_the_work_and_hold_nothing_twice(output: Output) -> None:
    stretches = [Stretch("m", start, start + 8) for start in range(0, 200, 8)]
    runs = [claims(output) for _ in range(5)]
    taken: list[set[Stretch]] = [set() for _ in runs]
    together = threading.Barrier(len(runs))

    def grab(number: int) -> None:
        order = Noise(3).generator("order", str(number)).permutation(len(stretches))
        with runs[number] as mine:
            together.wait()
            rounds = 0
            while len(set().union(*taken)) < len(stretches) and (rounds := rounds + 1) < 100:
                taken[number] |= {stretches[at] for at in order if mine.take(stretches[at])}
            together.wait()

    threads = [threading.Thread(target=grab, args=(number,)) for number in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(map(len, taken)) == len(set().union(*taken)), "two runs hold the same stretch"
    assert set().union(*taken) == set(stretches) and sum(map(bool, taken)) > 1


def test_the_elder_of_two_that_want_the_same_gets_it(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    with claims(output) as mine:
        elder = write(output, "00000000T000000.000000-elder", FIRST)
        assert not mine.take(FIRST)
        for file in elder:
            file.unlink()
        _, wanted = write(output, "99999999T000000.000000-younger", FIRST)
        monkeypatch.setattr(claim.time, "sleep", lambda seconds: wanted.unlink())
        assert not mine.take(FIRST), "known before: the younger may have it"
        written = mine._folder.write_bytes

        def meanwhile(name: str, content: bytes) -> None:
            written(name, content)
            wanted.touch()

        monkeypatch.setattr(mine._folder, "write_bytes", meanwhile)
        wanted.unlink()
        assert mine.take(FIRST), "the younger gave way while the elder waited"


def test_the_elder_gives_up_what_a_younger_run_took_first(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    with claims(output) as mine:
        files = write(output, "99999999T000000.000000-younger", FIRST)
        looks: list[float] = []
        monkeypatch.setattr(claim.time, "sleep", looks.append)
        assert not mine.take(FIRST) and len(looks) == claim._PATIENCE
        assert not mine.take(FIRST) and len(looks) == claim._PATIENCE, "now it is known, and not asked for"
        assert sorted((Path(output.uri) / CLAIMS).iterdir()) == sorted([*files, files[0].with_name(f"{mine.run}.json")])


def test_a_run_that_was_killed_here_loses_its_claims_at_once(output: Output) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with claims(output) as mine:
        here = json.loads(sign(ended=False, clearing=False))["place"]
        write(output, "1", FIRST, place=here, process=process.pid)
        assert mine.take(FIRST)
        mine.give_back(FIRST)
        write(output, "2", FIRST, place=here, process=os.getpid())
        assert not mine.take(FIRST), "that one lives"


@pytest.mark.parametrize("where", [socket.gethostname(), "", "another-boot/pid:[1]"])
def test_that_a_process_is_not_there_tells_nothing_of_a_run_elsewhere(output: Output, where: str) -> None:
    """Machines share names, and containers number their processes themselves."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with claims(output) as mine:
        write(output, "1", FIRST, place=where, process=process.pid)
        assert not mine.take(FIRST)


@pytest.mark.parametrize(("silent", "taken"), [(EXPIRED + 2, True), (EXPIRED - 20, False)])
def test_a_run_on_another_machine_loses_its_claims_after_a_minute_of_silence(
    output: Output, silent: float, taken: bool
) -> None:
    with claims(output) as mine:
        write(output, "1", FIRST, silent=silent)
        assert mine.take(FIRST) is taken


def test_who_was_suspended_asks_again_for_what_it_held(output: Output) -> None:
    now = [0.0]
    with Claims(output, every=3600, look_every=0, clock=lambda: now[0]) as mine:
        assert mine.take(FIRST)
        now[0] = EXPIRED / 2
        mine.give_sign()
        assert mine.holds(FIRST)
        now[0] = 2 * EXPIRED
        mine.give_sign()
        assert not mine.holds(FIRST) and mine.shared
        assert output.names(CLAIMS) == [f"{mine.run}.json"], "nor does anybody think so who looks now"


def test_results_are_not_taken_away_beside_another_run_nor_where_others_cannot_be_seen(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    with claims(output) as mine:
        with claims(output), pytest.raises(FatalError, match="another run is at work here"), mine.clearing():
            pytest.fail("it takes them away")

        def failing(*arguments: object) -> None:
            raise RetryableError("no answer")

        with monkeypatch.context() as patch:
            patch.setattr(Output, "times", failing)
            with pytest.raises(RetryableError, match="no answer"), mine.clearing():
                pytest.fail("it takes them away")
        with mine.clearing():
            pass


def test_a_run_begins_when_another_has_taken_results_away(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    with claims(output) as first:
        waited: list[float] = []
        with ExitStack() as clearing:
            clearing.enter_context(first.clearing())
            first.give_sign()  # which is not kept from it

            def wait(seconds: float) -> None:
                waited.append(seconds)
                if len(waited) == 3:
                    clearing.close()

            monkeypatch.setattr(claim.time, "sleep", wait)
            lines: list[str] = []
            with Claims(output, every=3600, say=lines.append) as second:
                assert len(waited) == 3 and second.shared
        assert len(lines) == 1 and "takes earlier results away" in lines[0]


def test_a_run_does_not_wait_for_one_that_died_while_it_took_results_away(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sign,) = write(output, "1", clearing=True)
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        old = sign.stat().st_mtime - EXPIRED / 4
        os.utime(sign, (old, old))

    monkeypatch.setattr(claim.time, "sleep", wait)
    with claims(output) as mine:
        assert 3 <= len(waited) <= 6 and not mine.neighbours


def test_what_is_taken_again_is_not_given_back_by_the_next_sign_of_life(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    with claims(output) as mine, claims(output) as other:
        assert mine.take(FIRST)
        with monkeypatch.context() as patch:
            patch.setattr(Output, "remove", lambda *rest: (_ for _ in ()).throw(RetryableError("no answer")))
            mine.give_back(FIRST)
        assert mine.take(FIRST)
        mine.give_sign()
        assert mine.holds(FIRST) and not other.take(FIRST)


def test_who_comes_back_and_cannot_give_back_what_it_held_gives_no_sign_of_life(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    with Claims(output, every=3600, look_every=0, clock=lambda: now[0]) as mine:
        assert mine.take(FIRST)
        (sign,) = (Path(output.uri) / CLAIMS).glob("*.json")
        os.utime(sign, (0, 0))
        now[0] = 2 * EXPIRED
        with monkeypatch.context() as patch:
            patch.setattr(Output, "remove", lambda *rest: (_ for _ in ()).throw(RetryableError("no answer")))
            mine.give_sign()
        assert sign.stat().st_mtime == 0, "with one, others would think that it has what it held"
        mine.give_sign()
        assert sign.stat().st_mtime > 0 and output.names(CLAIMS) == [sign.name]


@pytest.mark.parametrize("whole_seconds", [True, False])
def test_a_sign_of_life_is_read_again_when_it_is_new_even_where_times_are_whole_seconds(
    output: Output, monkeypatch: pytest.MonkeyPatch, whole_seconds: bool
) -> None:
    original = Output.times
    if whole_seconds:
        monkeypatch.setattr(
            Output, "times", lambda self, folder: {name: at // 1 for name, at in original(self, folder).items()}
        )
    with claims(output) as mine:
        write(output, "1", FIRST)
        assert not mine.take(FIRST) and mine.neighbours == 1
        write(output, "1", FIRST, ended=True)
        assert mine.take(FIRST)


def test_what_cannot_be_given_back_at_once_is_with_the_next_sign_of_life(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    with claims(output) as mine, claims(output) as other:
        assert mine.take(FIRST)
        with monkeypatch.context() as patch:
            patch.setattr(Output, "remove", lambda *rest: (_ for _ in ()).throw(RetryableError("no answer")))
            mine.give_back(FIRST)
        assert not mine.holds(FIRST) and not other.take(FIRST)
        mine.give_sign()
        assert other.take(FIRST)


def test_a_run_that_came_and_went_is_noticed(output: Output) -> None:
    with claims(output) as mine:
        assert mine.take(FIRST) and not mine.shared
        with claims(output) as other:
            assert other.take(Stretch("m", 0, 1)) and other.shared
        assert mine.take(Stretch("m", 0, 1)), "it has ended"
        assert mine.shared and not mine.neighbours
    assert output.names(CLAIMS) == []


def test_runs_that_end_at_the_same_moment_leave_nothing(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = claims(output).__enter__(), claims(output).__enter__()
    look = Neighbours.look

    def ends_meanwhile(self: Neighbours) -> Seen:
        seen = look(self)
        monkeypatch.setattr(Neighbours, "look", look)
        other.__exit__(None, None, None)  # after the look, and before what the look leads to
        return seen

    monkeypatch.setattr(Neighbours, "look", ends_meanwhile)
    one.__exit__(None, None, None)
    assert output.names(CLAIMS) == []


def test_what_ended_before_the_plan_costs_nothing_later(output: Output) -> None:
    write(output, "1", FIRST, silent=EXPIRED + 2)
    with claims(output) as mine:
        assert not mine.shared and output.names(CLAIMS) == [f"{mine.run}.json"]


def test_a_store_that_does_not_answer_is_asked_once_when_all_is_given_back(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call to an object store that is silent takes half a minute, and a run may hold many stretches."""
    asked: list[str] = []

    def silent(self: Output, name: str) -> None:
        asked.append(name)
        raise RetryableError("no answer")

    with claims(output) as mine:
        assert all(mine.take(Stretch("predictions/model=m-1", start, start + 8)) for start in range(0, 80, 8))
        monkeypatch.setattr(Output, "remove", silent)
        mine.give_all_back()
        assert len(asked) == 1 and not mine._held
        mine.give_sign()
        assert len(asked) == 2
    assert len(asked) == 3


def test_a_signal_while_another_run_clears_ends_the_claims(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    write(output, "1", clearing=True)

    def signalled(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(claim.time, "sleep", signalled)
    mine = claims(output)
    with pytest.raises(KeyboardInterrupt):
        mine.__enter__()
    assert not mine._thread.is_alive()
    assert json.loads((Path(output.uri) / CLAIMS / f"{mine.run}.json").read_text())["ended"]


def test_a_file_that_is_no_claim_is_nobody(output: Output) -> None:
    with claims(output) as mine:
        for number, text in enumerate(("", "[]", "{}", '{"place": "x"}')):
            (sign, _) = write(output, str(number), FIRST)
            sign.write_text(text)
        assert mine.take(FIRST)


def test_a_store_that_fails_stops_no_work(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: object) -> None:
        raise RetryableError("no answer")

    with claims(output) as mine:
        monkeypatch.setattr(Output, "write_bytes", failing)
        assert mine.take(FIRST)


def test_a_run_alone_pays_a_small_file_and_a_listing(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("write_bytes", "times", "read_bytes", "names", "list", "exists", "remove"):
        original = getattr(Output, name)
        monkeypatch.setattr(
            Output, name, lambda self, *rest, of=original, name=name: (calls.append(name), of(self, *rest))[1]
        )
    with claims(output) as mine:
        calls.clear()
        assert mine.take(FIRST) and mine.take(FIRST)
        assert calls == ["write_bytes", "times"]

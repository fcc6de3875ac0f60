"""The first signal stops a run wherever it is, and none is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from fault_run import hear_ctrl_c
from rich.console import Console
from small_plan import PREDICT, small_plan, started

from cluster.executor import Event
from jobs.cli import STOPPED
from jobs.interruption import Stop, StopRequested, stoppable
from jobs.log import RunLog
from jobs.plan import Plan
from jobs.progress import Progress
from jobs.record import RunRecord
from jobs.tally import Tally
from jobs.telling import Telling


def record_of(plan: Plan) -> RunRecord:
    return RunRecord("run", datetime.now(UTC), {}, Tally(plan))


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Who starts the tests in the background has Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


SIGNALS = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, StopRequested)]


@pytest.mark.parametrize(("number", "raised"), SIGNALS)
def test_a_signal_is_raised_inside_and_the_handlers_of_before_are_put_back(
    number: signal.Signals, raised: type[BaseException]
) -> None:
    before = {each: signal.getsignal(each) for each, _ in SIGNALS}
    with pytest.raises(raised), stoppable():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert {each: signal.getsignal(each) for each, _ in SIGNALS} == before


@pytest.mark.parametrize(("number", "raised"), SIGNALS)
def test_a_signal_that_a_finaliser_swallowed_is_raised_at_the_next_check(
    number: signal.Signals, raised: type[BaseException]
) -> None:
    class Finalised:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)
            time.sleep(0.01)

    with stoppable() as stop:
        stop.check()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "unraisablehook", lambda unraisable: None)
            one = Finalised()
            del one
        with pytest.raises(raised):
            stop.check()


def test_a_run_meets_a_lost_signal_at_the_next_event_of_its_workers() -> None:
    stop = Stop()
    telling = Telling(Progress(Console(quiet=True)), RunLog(), record_of(small_plan()), stop)
    telling.watch(started(PREDICT, 0))
    with suppress(StopRequested):
        stop.ask(signal.SIGTERM)
    with pytest.raises(StopRequested):
        telling.watch(started(PREDICT, 2))
    telling.watch(Event("stopping", reason="units in flight are left"))  # what is told because of it
    stop.over()
    telling.watch(started(PREDICT, 2))


def test_what_has_ended_is_not_stopped() -> None:
    with stoppable() as stop:
        stop.over()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        stop.check()


def test_no_library_that_catches_exceptions_swallows_a_stop() -> None:
    with pytest.raises(StopRequested), stoppable():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except Exception:  # noqa: BLE001
            pytest.fail("taken for an error")


def test_the_second_signal_ends_the_process_at_once() -> None:
    program = (
        "import os, signal, time\n"
        "from jobs.interruption import StopRequested, stoppable\n"
        "with stoppable():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)\n"
        "    except StopRequested:\n"
        "        os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, preexec_fn=hear_ctrl_c, check=False
    )
    assert done.returncode == STOPPED
    assert done.stderr.splitlines()[-1] == "stopped at once; the same command goes on with what is committed"

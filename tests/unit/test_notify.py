"""A webhook is told how a run ended; what it does changes no exit code, and its address is written nowhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from synthetic_rerun import FIRST, SECOND, values, write_rerun

from jobs import notify
from jobs.cli import FAILED, MISTAKE, OK, STOPPED, main
from jobs.notify import VARIABLE, check_address, deliver, run_message, without_address
from jobs.run import Result
from pipeline.errors import FatalError

Capture = pytest.CaptureFixture[str]
SECRET = "T0KEN-of-the-hook"


class Hook:
    """A server on this machine that answers with given statuses, one after the other, then with 204."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.got: list[tuple[str, str, Any]] = []
        self.asked: Callable[[], None] = lambda: None
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.asked()
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.got.append((self.path, self.headers["Content-Type"], json.loads(body)))
                self.send_response(hook.answers.pop(0) if hook.answers else 204)
                self.send_header("Location", f"{hook.address}/elsewhere")
                self.end_headers()

            do_GET = do_POST  # noqa: N815

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/hook/{SECRET}"


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    monkeypatch.setattr(notify, "PAUSE", 0.01)
    hook = Hook()
    thread = threading.Thread(target=hook.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield hook
    hook.server.shutdown()
    hook.server.server_close()
    thread.join()


def test_a_message_is_posted_as_json(hook: Hook) -> None:
    assert deliver(hook.address, {"text": "done"}) == ""
    assert hook.got == [(f"/hook/{SECRET}", "application/json", {"text": "done"})]


@pytest.mark.parametrize(
    ("answers", "tries", "trouble"),
    [
        ([500], 2, ""),
        ([429], 2, ""),
        ([503, 502, 500], 2, "it answered with status 502"),
        ([404], 1, "it answered with status 404"),
        ([302], 1, "it answered with status 302"),
    ],
)
def test_it_is_tried_once_more_where_that_may_help(hook: Hook, answers: list[int], tries: int, trouble: str) -> None:
    hook.answers = answers
    assert deliver(hook.address, {}) == trouble
    assert len(hook.got) == tries
    assert all("elsewhere" not in path for path, _, _ in hook.got)


def test_nobody_there_is_told_without_the_address(hook: Hook) -> None:
    hook.server.server_close()
    assert deliver(hook.address, {}) == "connection refused"


def test_no_answer_is_waited_for_so_long_and_no_longer(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    hook.asked = lambda: bool(released.wait(5)) and None
    monkeypatch.setattr(notify, "TIMEOUT", 0.1)
    assert deliver(hook.address, {}) == "no answer within 0.1 seconds"
    released.set()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (SECRET, "ValueError"),
        (f"http://[{SECRET}/", "ValueError"),
        (f"http://host:{SECRET}/", "InvalidURL"),
        (f"http://127.0.0.1:1/ {SECRET}", "InvalidURL"),
    ],
)
def test_the_words_of_errors_that_repeat_the_address_are_not_passed_on(
    address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "PAUSE", 0.01)
    assert deliver(address, {}) == said


@pytest.mark.parametrize(
    "address",
    [
        "",
        SECRET,
        f"ftp://host/{SECRET}",
        f"file:///{SECRET}",
        f"https:///{SECRET}",
        f"https://user:{SECRET}@host/",
        f"https://host/{SECRET} x",
        f"http://host:{SECRET}/",
        f"http://[{SECRET}/",
    ],
)
def test_what_cannot_be_a_webhook_is_refused_without_repeating_it(address: str) -> None:
    with pytest.raises(FatalError, match="expected an address such as") as error:
        check_address(address)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    "address", ["https://hooks.example.org/T0/B0/x?y=z", "http://localhost:8080", "http://[::1]:80/x"]
)
def test_what_can_be_one_is_taken(address: str) -> None:
    check_address(address)


def result(status: str = "done", **changes: Any) -> Result:
    keys = {"run": SECOND, "page": None, "done": 4, "left": 0, "failures": 0, **changes}
    return Result(status, **keys)  # type: ignore[arg-type]


def reruns(folder: Path, shift: float) -> Any:
    write_rerun(folder, {("agi", "mar"): values(20), ("random", "mar"): values(20, 5)})
    scores = {("agi", "mar"): values(20, shift), ("random", "mar"): values(20, 5)}
    return write_rerun(folder, scores, run=SECOND, fingerprint="f1")


def test_the_message_has_status_counts_figures_and_regressions(tmp_path: Path) -> None:
    output = reruns(tmp_path, -0.5)
    message = run_message(output, result("failed", failures=3, lost=("scores/a [0, 4): why",), page="report/x.html"))
    assert (message["status"], message["run"], message["name"]) == ("failed", SECOND, "weekly")
    assert message["page"] == f"{output.uri}/report/x.html"
    assert (message["units"], message["failures"]) == ({"done": 4, "left": 0, "lost": 1, "stranded": 0}, 3)
    (headline,) = message["headlines"]
    assert headline["method"] == "agi", "the control is no headline"
    assert headline["mean"] == pytest.approx(sum(values(20, -0.5).values()) / 20)
    assert message["compared_with"] == FIRST
    assert [(one["method"], one["metric"]) for one in message["regressions"]] == [("agi", "mar")]
    assert message["text"] == (
        "heatline weekly: failed; 4 units computed, 0 left, 1 lost, 3 samples failed; 1 regression"
    )
    json.dumps(message, allow_nan=False)


def test_a_first_run_is_compared_with_nothing(tmp_path: Path) -> None:
    output = write_rerun(tmp_path, {("agi", "mar"): values(20)})
    message = run_message(output, result(run=FIRST))
    assert (message["compared_with"], message["regressions"]) == (None, None)
    assert message["text"].endswith("0 samples failed")


def test_a_record_that_cannot_be_read_costs_the_comparison_alone(tmp_path: Path) -> None:
    output = reruns(tmp_path, 0.5)
    output.write_bytes(f"runs/{FIRST}.json", b"{")
    assert run_message(output, result())["regressions"] is None


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Result | Exception], list[str]]:
    """What `heatline run` is given, once it is said how the run ends; no job is run."""

    def prepared(how: Result | Exception) -> list[str]:
        reruns(tmp_path / "out", -0.5)

        def run(*_: Any, **__: Any) -> Result:
            if isinstance(how, Exception):
                raise how
            return how

        monkeypatch.setattr("jobs.commands.run.run_job", run)
        return ["run", "quickstart", "--set", f"output={tmp_path / 'out'}", "--profile", "local"]

    return prepared


Ended = Callable[[Result | Exception], list[str]]


@pytest.mark.parametrize(
    ("how", "code"),
    [(result(), OK), (result("failed"), FAILED), (result("stopped", reason="stopped by a signal"), STOPPED)],
    ids=["done", "failed", "stopped"],
)
@pytest.mark.parametrize("answers", [[], [500, 500]], ids=["reached", "not reached"])
def test_the_exit_code_is_the_runs_whether_or_not_the_webhook_is_reached(
    how: Result, code: int, answers: list[int], hook: Hook, ended: Ended, capsys: Capture
) -> None:
    hook.answers = list(answers)
    assert main([*ended(how), "--notify", hook.address]) == code
    said = capsys.readouterr()
    assert hook.got[-1][2]["status"] == how.status
    warning = "warning: the webhook was not reached: it answered with status 500"
    assert (warning in said.err.splitlines()) == bool(answers)
    assert SECRET not in said.out + said.err


def test_the_address_may_stand_in_the_environment_from_which_it_is_taken(
    hook: Hook, ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, hook.address)
    assert main(ended(result())) == OK
    assert len(hook.got) == 1 and VARIABLE not in os.environ


def test_without_an_address_nobody_is_told(hook: Hook, ended: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    assert main(ended(result())) == OK
    assert hook.got == []


def test_a_run_that_does_not_begin_is_told_too(hook: Hook, ended: Ended) -> None:
    assert main([*ended(FatalError("the weights are gone")), "--notify", hook.address]) == MISTAKE
    ((_, _, message),) = hook.got
    assert (message["status"], message["name"], message["reason"]) == ("refused", "quickstart", "the weights are gone")


def test_a_run_whose_spec_cannot_be_read_is_told_of_too(hook: Hook, tmp_path: Path) -> None:
    (tmp_path / "weekly.yaml").write_text("version: 1\nmethodz: [gradient]\n")
    for name in ("weekly.yaml", "none.yaml"):
        assert main(["run", str(tmp_path / name), "--notify", hook.address]) == MISTAKE
    (_, _, wrong), (_, _, missing) = hook.got
    assert wrong["name"] == "weekly" and "methodz" in wrong["reason"] and "no such file" in missing["reason"]


def test_a_file_for_continuous_integration_that_cannot_be_written_is_told_before_anything_runs(
    ended: Ended, capsys: Capture
) -> None:
    assert main([*ended(AssertionError("it runs")), "--junit", "/proc/none/j.xml"]) == MISTAKE
    assert "--junit /proc/none/j.xml: cannot be written" in capsys.readouterr().err


def test_a_run_that_does_not_begin_leaves_no_file_of_the_run_before(ended: Ended, tmp_path: Path) -> None:
    file = tmp_path / "j.xml"
    file.write_text("<testsuites tests='1' failures='0'/>")
    assert main([*ended(FatalError("the weights are gone")), "--junit", str(file)]) == MISTAKE
    (case,) = ElementTree.parse(file).getroot().iter("testcase")
    assert case.attrib["name"] == "quickstart" and case[0].attrib["message"] == "the weights are gone"


def test_a_file_that_cannot_be_written_any_more_is_a_warning_after_the_webhook_was_told(
    hook: Hook, ended: Ended, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "reports"
    hook.asked = lambda: (shutil.rmtree(folder), folder.touch())
    words = [*ended(result()), "--notify", hook.address, "--junit", str(folder / "j.xml")]
    assert main(words) == OK
    assert len(hook.got) == 1 and "warning: not everybody was told: --junit" in capsys.readouterr().err


def test_a_bad_address_is_a_mistake_before_anything_runs(ended: Ended, capsys: Capture) -> None:
    assert main([*ended(result()), "--notify", f"ftp://{SECRET}"]) == MISTAKE
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and SECRET not in said.err


def test_the_address_is_in_no_file_of_the_output(hook: Hook, ended: Ended, tmp_path: Path) -> None:
    assert main([*ended(result()), "--notify", hook.address, "--junit", str(tmp_path / "out" / "j.xml")]) == OK
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert (tmp_path / "out" / "j.xml") in files
    assert not any(SECRET.encode() in file.read_bytes() for file in files)


@pytest.mark.parametrize("words", [["--notify", SECRET], [f"--notify={SECRET}"]])
def test_the_command_that_goes_on_is_printed_without_the_address(
    words: list[str], hook: Hook, ended: Ended, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(sys, "argv", ["heatline", "run", "a.yaml", *words, "--fresh", "--profile", "local"])
    assert main(ended(result("stopped", reason="stopped by a signal"))) == STOPPED
    assert capsys.readouterr().err.splitlines()[-1] == "  heatline run a.yaml --profile local"


def test_words_that_only_look_like_the_option_stay() -> None:
    words = ["run", "--notify-me", "notify", "--notify", "a", "--notify=b", "--set", "a=--notify"]
    assert without_address(words) == ["run", "--notify-me", "notify", "--set", "a=--notify"]


def test_an_address_on_the_command_line_is_gone_from_it_when_the_work_begins(hook: Hook, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        f"version: 1\nname: a\noutput: {tmp_path / 'out'}\ndataset: {{source: imagefolder, path: none}}\n"
        "models: [{name: mnist_cnn2, weights: random}]\nmethods: [gradient]\n"
    )
    seen: list[bytes] = []
    command = [sys.executable, "-m", "jobs.cli", "run", str(tmp_path / "a.yaml"), "--notify", hook.address]
    with subprocess.Popen([*command, "--profile", "local"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        hook.asked = lambda: seen.append(Path(f"/proc/{process.pid}/cmdline").read_bytes())
        out, err = process.communicate()
    assert process.returncode == MISTAKE
    ((_, _, message),) = hook.got
    assert message["status"] == "refused" and "none" in message["reason"]
    assert seen and b"a.yaml" in seen[0] and SECRET.encode() not in seen[0]
    assert SECRET.encode() not in out + err

"""Reruns on one machine: crontab lines and systemd units, as text and put in place."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from jobs.cron import read_cron
from jobs.crontab import crontab_line, install_line
from jobs.systemd import install_units, service_unit, timer_unit
from pipeline.errors import FatalError

CRON = read_cron("0 3 * * 1")

CRONTAB = """\
#!/bin/sh
# What cron's own does: a file a user, and an error where there is none.
case "$1" in
  -l) cat "$TABLE" 2>/dev/null || { echo "no crontab for me" >&2; exit 1; } ;;
  -) cat > "$TABLE" ;;
esac
"""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's crontab, under a command that stands in for cron's."""
    command(tmp_path, "crontab", CRONTAB, monkeypatch)
    monkeypatch.setenv("TABLE", str(tmp_path / "table"))
    return tmp_path / "table"


def command(tmp_path: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def line(*words: str, name: str = "heatline-a", folder: str = "/srv") -> str:
    return crontab_line(name, CRON, ["/bin/heatline", "run", *words], Path(folder), Path(folder) / "a.log")


def test_a_line_goes_to_the_folder_runs_the_command_and_keeps_what_it_says() -> None:
    assert line("/specs/a.yaml") == (
        "0 3 * * 1 cd /srv && /bin/heatline run /specs/a.yaml >> /srv/a.log 2>&1 # heatline schedule heatline-a"
    )


def test_the_shell_gets_every_word_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "it's 50% off & $HOME"
    folder.mkdir()
    words = ["a b.yaml", "--set", "name=x;y", "100%", "#no"]
    text = crontab_line("n", CRON, [shutil.which("printf") or "", "%s|", *words], folder, folder / "log")
    # What cron hands to the shell: the sixth field on, with \\% as %.
    shell = text.split(" ", 5)[5].replace(r"\%", "%")
    subprocess.run(["sh", "-c", shell], check=True)
    assert (folder / "log").read_text() == "".join(f"{word}|" for word in words)
    assert "%" not in text.replace(r"\%", "")


def test_a_line_gives_variables_to_the_command_alone(tmp_path: Path) -> None:
    given = {"A": "it's 50% of $HOME", "HEATLINE_LOG": "-"}
    words = ["sh", "-c", 'echo "$A|$HEATLINE_LOG"']
    text = crontab_line("n", CRON, words, tmp_path, tmp_path / "log", given)
    subprocess.run(["sh", "-c", text.split(" ", 5)[5].replace(r"\%", "%")], check=True)
    assert (tmp_path / "log").read_text() == "it's 50% of $HOME|-\n"
    with pytest.raises(FatalError, match="a crontab cannot hold"):
        crontab_line("n", CRON, words, tmp_path, tmp_path / "log", {"A": "a\nb"})


@pytest.mark.parametrize("word", ["a\nb.yaml", "a\\b.yaml", "a\tb"])
def test_a_word_that_no_crontab_holds_is_refused(word: str) -> None:
    with pytest.raises(FatalError, match="a crontab cannot hold"):
        line(word)


@pytest.mark.parametrize("others", [b"0 1 * * * printf 'a\x0cb\x0b'\r\n# caf\xe9 \xe2\x80\xa8\n", b"@daily x", b""])
def test_what_stands_in_the_crontab_stays_to_the_byte(table: Path, others: bytes) -> None:
    table.write_bytes(others)
    install_line("heatline-a", line("a.yaml"))
    ending = b"" if others.endswith(b"\n") or not others else b"\n"
    assert table.read_bytes() == others + ending + line("a.yaml").encode() + b"\n"


def test_installing_is_done_once(table: Path) -> None:
    assert install_line("heatline-a", line("a.yaml")) == "added"
    assert install_line("heatline-a", line("a.yaml")) == "unchanged"
    assert table.read_text() == line("a.yaml") + "\n"


def test_other_lines_stay_as_they_are(table: Path) -> None:
    table.write_text("MAILTO=me\n# a comment\n\n0 1 * * * backup # heatline schedule heatline-ab\n")
    before = table.read_text()
    assert install_line("heatline-a", line("a.yaml")) == "added"
    assert table.read_text() == before + line("a.yaml") + "\n"
    assert install_line("heatline-a", line("b.yaml")) == "replaced"
    assert table.read_text() == before + line("b.yaml") + "\n"


def test_a_line_that_somebody_doubled_becomes_one(table: Path) -> None:
    table.write_text(f"{line('a.yaml')}\n@daily backup\n{line('a.yaml')}\n")
    assert install_line("heatline-a", line("b.yaml")) == "replaced"
    assert table.read_text() == f"{line('b.yaml')}\n@daily backup\n"


def test_a_line_that_is_commented_out_stays_so(table: Path) -> None:
    table.write_text(f"# {line('a.yaml')}\n")
    assert install_line("heatline-a", line("a.yaml")) == "added"
    assert table.read_text() == f"# {line('a.yaml')}\n{line('a.yaml')}\n"


def test_a_crontab_that_cannot_be_read_is_not_overwritten(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.write_text("@daily backup\n")
    command(
        tmp_path,
        "crontab",
        '#!/bin/sh\n[ "$1" = -l ] && echo "disk error" >&2 && exit 1\ncat > "$TABLE"\n',
        monkeypatch,
    )
    with pytest.raises(FatalError, match="crontab -l: disk error"):
        install_line("heatline-a", line("a.yaml"))
    assert table.read_text() == "@daily backup\n"


def test_without_cron_the_error_says_what_to_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FatalError, match="there is no crontab here; take --target systemd"):
        install_line("heatline-a", line("a.yaml"))
    with pytest.raises(FatalError, match="there is no systemctl here; take --target cron"):
        install_units("heatline-a", "", "")


SERVICE = service_unit("a", ["/bin/heatline", "run", "/specs/a b.yaml", "--set", 'x=50% of "$HOME"'], Path("/srv"))
TIMER = timer_unit("a", read_cron("0 3 1 * 1"), "Europe/Berlin")


def test_a_service_goes_on_only_where_the_run_was_stopped() -> None:
    settings = SERVICE.splitlines()
    assert "RestartForceExitStatus=3" in settings
    assert not [setting for setting in settings if setting.startswith("Restart=")]
    assert "WorkingDirectory=/srv" in settings


def test_a_service_takes_signs_literally() -> None:
    assert 'ExecStart=/bin/heatline run "/specs/a b.yaml" --set "x=50%% of \\"$$HOME\\""' in SERVICE.splitlines()


def test_a_timer_makes_up_for_a_time_at_which_the_machine_was_off() -> None:
    section = TIMER.partition("[Timer]\n")[2].partition("[Install]")[0]
    assert "Persistent=true" in section.splitlines()


def test_a_service_gives_variables_to_the_command() -> None:
    given = {"AWS_REGION": "eu-west-1", "A": 'a "b" \\ 50% $HOME'}
    settings = service_unit("a", ["/bin/heatline"], Path("/srv"), given).splitlines()
    start = settings.index("WorkingDirectory=/srv")
    assert settings[start + 1 : start + 4] == [
        'Environment="AWS_REGION=eu-west-1"',
        'Environment="A=a \\"b\\" \\\\ 50%% $HOME"',
        "ExecStart=/bin/heatline",
    ]
    with pytest.raises(FatalError, match="control characters"):
        service_unit("a", ["/bin/heatline"], Path("/srv"), {"A": "a\nExecStart=/bin/evil"})


def test_a_path_with_a_line_break_is_refused() -> None:
    with pytest.raises(FatalError, match="control characters"):
        service_unit("a", ["/bin/heatline"], Path("/srv\nExecStart=/bin/evil"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_finds_no_fault_in_the_units(tmp_path: Path) -> None:
    command = [shutil.which("true") or "", "a b", "50%", "$HOME"]
    service = service_unit("a", command, tmp_path, {"A": 'a "b" 50% $HOME', "HEATLINE_LOG": "-"})
    (tmp_path / "heatline-a.service").write_text(service)
    (tmp_path / "heatline-a.timer").write_text(TIMER)
    done = subprocess.run(
        [
            "systemd-analyze",
            "verify",
            "--man=no",
            str(tmp_path / "heatline-a.timer"),
            str(tmp_path / "heatline-a.service"),
        ],
        capture_output=True,
        text=True,
    )
    # Faults of units of the machine's own are told as well.
    assert "heatline-a" not in done.stderr
    assert done.returncode == 0


def test_installing_units_writes_them_and_starts_the_timer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(tmp_path, "systemctl", '#!/bin/sh\necho "$@" >> "$CALLS"\n', monkeypatch)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for _ in range(2):
        folder = install_units("heatline-a", SERVICE, TIMER)
    assert folder == tmp_path / "config" / "systemd" / "user"
    assert (folder / "heatline-a.service").read_text() == SERVICE
    assert (folder / "heatline-a.timer").read_text() == TIMER
    calls = (tmp_path / "calls").read_text().splitlines()
    once = ["--user show-environment", "--user daemon-reload", "--user enable --now heatline-a.timer"]
    assert calls == once * 2


def test_without_a_running_systemd_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(tmp_path, "systemctl", '#!/bin/sh\necho "Failed to connect to bus" >&2\nexit 1\n', monkeypatch)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with pytest.raises(FatalError, match="systemctl --user show-environment: Failed to connect to bus"):
        install_units("heatline-a", SERVICE, TIMER)
    assert not (tmp_path / "config").exists()

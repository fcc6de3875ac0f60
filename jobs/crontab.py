"""A job on one machine by cron: a line in the user's crontab, known again by the comment at its end.

cron forgets a time at which the machine is off; the timers of `jobs.systemd` make up for it.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from jobs.cron import Cron
from pipeline.errors import FatalError


def crontab_line(
    name: str,
    cron: Cron,
    command: Sequence[str],
    folder: Path,
    log: Path,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The line of a job.

    Args:
        name: of the job; one line a name.
        cron: when it runs.
        command: the words of the command; the first is an absolute path.
        folder: where it runs.
        log: a file that takes what the command prints, since cron would mail it or throw it away.
        environment: variables that the command gets.

    Raises:
        FatalError: a path or a value that crons read differently.
    """
    words = [*command, str(folder), str(log), *environment.values()]
    for word in words:
        if not word.isprintable() or "\\" in word:
            raise FatalError(f"a crontab cannot hold {word!r}: rename it, or take --target systemd")
    variables = "".join(f"{key}={shlex.quote(value)} " for key, value in environment.items())
    shell = f"cd {shlex.quote(str(folder))} && {variables}{shlex.join(command)} >> {shlex.quote(str(log))} 2>&1"
    # cron takes a bare % for the end of the line.
    return f"{cron.text} {shell} {_marker(name)}".replace("%", r"\%")


def install_line(name: str, line: str) -> Literal["added", "replaced", "unchanged"]:
    """Puts a line into the user's crontab, in place of the one of that name; all others stay as they are.

    Returns:
        What became of it.

    Raises:
        FatalError: there is no crontab command, or it refuses.
    """
    before = _crontab_list()
    lines = before.removesuffix("\n").split("\n") if before else []
    old = [number for number, one in enumerate(lines) if one.endswith(" " + _marker(name)) and not one.startswith("#")]
    if len(old) == 1 and lines[old[0]] == line:
        return "unchanged"
    if old:
        lines[old[0]] = line
    else:
        lines.append(line)
    kept = [one for number, one in enumerate(lines) if number not in old[1:]]
    _crontab("-", text="\n".join(kept) + "\n")
    return "replaced" if old else "added"


def _marker(name: str) -> str:
    return f"# heatline schedule {name}"


def _crontab_list() -> str:
    done = _run("-l")
    if done.returncode == 0:
        return done.stdout
    # A crontab that cannot be read must not be taken for an empty one, and overwritten.
    if any(words in done.stderr.lower() for words in ("no crontab", "no such file")):
        return ""
    raise FatalError(f"crontab -l: {_said(done)}")


def _crontab(*words: str, text: str) -> None:
    done = _run(*words, text=text)
    if done.returncode:
        raise FatalError(f"crontab {' '.join(words)}: {_said(done)}")


def _run(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        # Bytes, since the lines of others may be in any encoding, and their line ends are theirs.
        done = subprocess.run(["crontab", *words], input=_bytes(text), capture_output=True, check=False)
    except FileNotFoundError as error:
        raise FatalError("there is no crontab here; take --target systemd, or install cron") from error
    return subprocess.CompletedProcess(done.args, done.returncode, _text(done.stdout), _text(done.stderr))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join(done.stderr.split()) or f"exit code {done.returncode}"

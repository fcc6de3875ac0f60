"""A job on one machine by systemd: a service and a timer of the user's own."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import MappingProxyType

from jobs.cron import Cron
from pipeline.errors import FatalError

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_PLAIN = re.compile(r"[A-Za-z0-9@+=:,./_-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_SERVICE = """\
[Unit]
Description=heatline: {spec}

[Service]
Type=exec
WorkingDirectory={folder}
{environment}ExecStart={command}
# 3: stopped before the end, the same command goes on. 1 (finished with failures) and 2 (a mistake in the spec) would
# end the same way again.
RestartForceExitStatus=3
RestartSec=5min
# The run stops its own workers and writes its record.
KillMode=mixed
TimeoutStopSec=2min
"""

_TIMER = """\
[Unit]
Description=heatline: {spec}, at {cron}

[Timer]
{times}
# A time at which the machine is off, or nobody is logged in, is made up for once.
Persistent=true
AccuracySec=1s

[Install]
WantedBy=timers.target
"""


def on_calendar(cron: Cron, zone: str | None = None) -> tuple[str, ...]:
    """A cron line as systemd writes times (OnCalendar=), with the very same meaning.

    Args:
        cron: the line.
        zone: its time zone; default: the machine's.

    Returns:
        One expression, or two where a day may fit by its number or by its day of the week, which systemd takes
        together with 'and' in one and with 'or' in several.
    """
    weekdays = sorted((day - 1) % 7 for day in cron.weekdays)
    named = "" if len(weekdays) == 7 else _listed(weekdays, _WEEKDAYS) + " "
    months = _listed(cron.months, _numbers(12), every=12)
    days = _listed(cron.days, _numbers(31), every=31)
    time = f"{_listed(cron.hours, _numbers(23), every=24)}:{_listed(cron.minutes, _numbers(59), every=60)}:00"
    tail = f"{time} {zone}" if zone else time
    if cron.either_day:
        return f"*-{months}-{days} {tail}", f"{named}*-{months}-* {tail}"
    return (f"{named}*-{months}-{days} {tail}",)


def service_unit(
    spec: str, command: Sequence[str], folder: Path, environment: Mapping[str, str] = MappingProxyType({})
) -> str:
    """The service that runs a job once.

    Args:
        spec: the spec's name, for people.
        command: the words of the command; the first is an absolute path.
        folder: where it runs.
        environment: variables that the command gets.

    Raises:
        FatalError: a control character in a path or a value, which a unit cannot hold.
    """
    for word in (*command, str(folder), *environment.values()):
        if _CONTROL.search(word):
            raise FatalError(f"a systemd unit cannot hold the control characters of {word!r}; rename it")
    path = str(folder).replace("%", "%%")
    # A $ is literal here, unlike in ExecStart=.
    variables = "".join(f"Environment={_in_quotes(f'{key}={value}')}\n" for key, value in environment.items())
    words = " ".join(map(_quoted, command))
    return _SERVICE.format(spec=spec.replace("%", "%%"), folder=path, environment=variables, command=words)


def timer_unit(spec: str, cron: Cron, zone: str | None = None) -> str:
    """The timer that starts the service of the same name; what it missed it makes up for once, when it can."""
    times = "\n".join(f"OnCalendar={time}" for time in on_calendar(cron, zone))
    return _TIMER.format(spec=spec.replace("%", "%%"), cron=cron.text, times=times)


def install_units(name: str, service: str, timer: str) -> Path:
    """Writes both units for the user and starts the timer.

    Args:
        name: of the units, without suffix.
        service: text of the service.
        timer: text of the timer.

    Returns:
        The folder they are in.

    Raises:
        FatalError: there is no systemd for the user, or it refuses.
    """
    _systemctl("show-environment")
    configuration = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    folder = Path(configuration).expanduser() / "systemd" / "user"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.service").write_text(service, encoding="utf-8")
        (folder / f"{name}.timer").write_text(timer, encoding="utf-8")
    except OSError as error:
        raise FatalError(f"{folder}: the units cannot be written: {error.strerror}") from error
    _systemctl("daemon-reload")
    _systemctl("enable", "--now", f"{name}.timer")
    return folder


def _systemctl(*words: str) -> None:
    command = ["systemctl", "--user", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise FatalError(
            "there is no systemctl here; take --target cron, or --write the units for another machine"
        ) from error
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise FatalError(f"{' '.join(command)}: {said}")


def _numbers(last: int) -> list[str]:
    return [f"{number:02d}" for number in range(last + 1)]


def _listed(values: Sequence[int], names: Sequence[str], every: int = 0) -> str:
    """Values as a list, three and more in a row as a range; a star where there are `every` many."""
    if len(values) == every:
        return "*"
    parts: list[str] = []
    for _, group in groupby(enumerate(values), key=lambda pair: pair[1] - pair[0]):
        run = [names[value] for _, value in group]
        parts += [f"{run[0]}..{run[-1]}"] if len(run) > 2 else run
    return ",".join(parts)


def _quoted(word: str) -> str:
    """A word of ExecStart=: specifiers and variables are taken literally."""
    word = word.replace("$", "$$")
    return word if _PLAIN.fullmatch(word) else _in_quotes(word)


def _in_quotes(word: str) -> str:
    """A word of a unit in quotes: specifiers are taken literally."""
    return '"' + word.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"') + '"'

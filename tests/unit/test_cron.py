"""Cron lines: what they mean, what is refused, and the same times as systemd writes them."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import datetime, timedelta

import pytest

from jobs.cron import read_cron
from jobs.problem import SpecError
from jobs.systemd import on_calendar

START = datetime(2026, 2, 20, 11, 37)

TRANSLATIONS = [
    ("0 3 * * 1", "0 3 * * 1", ["Mon *-*-* 03:00:00"]),
    ("0 3 * * mon", "0 3 * * 1", ["Mon *-*-* 03:00:00"]),
    ("*/15 * * * *", "*/15 * * * *", ["*-*-* *:00,15,30,45:00"]),
    ("* * * * *", "* * * * *", ["*-*-* *:*:00"]),
    ("5 4 * * *", "5 4 * * *", ["*-*-* 04:05:00"]),
    ("0 9-17/2 * * 1-5", "0 9-17/2 * * 1-5", ["Mon..Fri *-*-* 09,11,13,15,17:00:00"]),
    ("30 23 * * 7", "30 23 * * 0", ["Sun *-*-* 23:30:00"]),
    ("30 23 * * 5-7", "30 23 * * 0,5,6", ["Fri..Sun *-*-* 23:30:00"]),
    ("0 0 * * SUN,Sat", "0 0 * * 0,6", ["Sat,Sun *-*-* 00:00:00"]),
    ("0 0 */10 * *", "0 0 */10 * *", ["*-*-01,11,21,31 00:00:00"]),
    ("0 0 * * */3", "0 0 * * */3", ["Wed,Sat,Sun *-*-* 00:00:00"]),
    ("0 6 1 jan-mar,12 *", "0 6 1 1-3,12 *", ["*-01..03,12-01 06:00:00"]),
    ("0 3 1,15 * 5", "0 3 1,15 * 5", ["*-*-01,15 03:00:00", "Fri *-*-* 03:00:00"]),
    ("0 3 1-31 * 5", "0 3 1-31 * 5", ["*-*-* 03:00:00", "Fri *-*-* 03:00:00"]),
    ("0 3 31 2 0", "0 3 31 2 0", ["Sun *-02-* 03:00:00"]),
    ("0 12 29 2 *", "0 12 29 2 *", ["*-02-29 12:00:00"]),
    ("1,2,3,7-9 */1 * */6 *", "1,2,3,7-9 * * */6 *", ["*-01,07-* *:01..03,07..09:00"]),
]


def slow_times(line: str, start: datetime, count: int, step: timedelta = timedelta(minutes=1)) -> list[datetime]:
    """The next times of a line in numbers, by trying one minute after the other, as crond does."""

    def covers(field: str, value: int, low: int, high: int) -> bool:
        for item in field.split(","):
            span, _, every = item.partition("/")
            first, _, last = span.partition("-")
            ends = (low, high) if span == "*" else (int(first), int(last or first))
            if value in range(ends[0], ends[1] + 1, int(every or 1)):
                return True
        return False

    minute, hour, day, month, weekday = line.split()
    found: list[datetime] = []
    moment = start.replace(second=0, microsecond=0)
    while len(found) < count:
        moment += step
        numbered, named = covers(day, moment.day, 1, 31), covers(weekday, moment.isoweekday() % 7, 0, 6)
        free = day.startswith("*") or weekday.startswith("*")
        if (
            covers(minute, moment.minute, 0, 59)
            and covers(hour, moment.hour, 0, 23)
            and covers(month, moment.month, 1, 12)
            and ((numbered and named) if free else (numbered or named))
        ):
            found.append(moment)
    return found


@pytest.mark.parametrize(("line", "text", "calendar"), TRANSLATIONS)
def test_a_line_means_these_times_of_systemd(line: str, text: str, calendar: list[str]) -> None:
    cron = read_cron(line)
    assert cron.text == text
    assert list(on_calendar(cron)) == calendar


def test_the_time_zone_ends_each_expression() -> None:
    assert on_calendar(read_cron("0 3 1 * 5"), "Europe/Berlin") == (
        "*-*-01 03:00:00 Europe/Berlin",
        "Fri *-*-* 03:00:00 Europe/Berlin",
    )


@pytest.mark.parametrize("line", [line for line, _, _ in TRANSLATIONS if "29 2" not in line])
def test_the_next_times_are_those_found_minute_by_minute(line: str) -> None:
    cron = read_cron(line)
    # Whole days apart where a line is rare, so that the slow walk ends.
    rare = cron.minutes == (0,) and len(cron.hours) == 1
    step = timedelta(hours=1) if rare else timedelta(minutes=1)
    start = START.replace(minute=0) if rare else START
    moment, found = start, []
    for _ in range(6):
        moment = cron.next_after(moment)
        found.append(moment)
    assert found == slow_times(cron.text, start, 6, step)


def test_a_leap_day_is_waited_for_over_a_year_without_one() -> None:
    assert read_cron("0 12 29 2 *").next_after(datetime(2096, 3, 1)) == datetime(2104, 2, 29, 12)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("line", [line for line, _, _ in TRANSLATIONS])
def test_systemd_comes_to_the_same_times(line: str) -> None:
    cron = read_cron(line)
    times: set[datetime] = set()
    for expression in on_calendar(cron):
        done = subprocess.run(
            ["systemd-analyze", "calendar", "--iterations=6", f"--base-time={START:%Y-%m-%d %H:%M:%S} UTC", expression],
            capture_output=True,
            text=True,
            env={"TZ": "UTC", "PATH": "/usr/bin:/bin"},
        )
        stamps = re.findall(r"#?\w+: \w+ (\S+ \S+) UTC", done.stdout)
        times |= {datetime.fromisoformat(stamp) for stamp in stamps}
    moment, found = START, []
    for _ in range(6):
        moment = cron.next_after(moment)
        found.append(moment)
    assert found == sorted(times)[:6]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "expected five fields"),
        ("0 3 * *", "got 4"),
        ("0 0 3 * * 1", "got 6; cron knows no seconds and no years"),
        ("@weekly", "write it as '0 0 * * 0'"),
        ("@reboot", "a rerun needs times"),
        ("60 3 * * 1", "minute: expected a number from 0 to 59, got 60"),
        ("0 24 * * 1", "hour: expected a number from 0 to 23, got 24"),
        ("0 3 0 * *", "day of the month: expected a number from 1 to 31, got 0"),
        ("0 3 * 13 *", "month: expected a number from 1 to 12, got 13"),
        ("0 3 * * 8", "day of the week: expected a number from 0 to 7, got 8"),
        ("0 3 * * mo", "day of the week: expected a number from 0 to 7, or sun to sat, got 'mo'"),
        ("0 three * * 1", "hour: expected a number from 0 to 23, got 'three'"),
        ("0 3 * * 1#2", "day of the week: expected numbers, ranges"),
        ("0 3 L * *", "day of the month: expected a number"),
        ("0 3 ? * 1", "day of the month: expected numbers, ranges"),
        ("0 22-2 * * *", "hour: '22-2' runs backwards; write 22-23,0-2"),
        ("0/5 * * * *", "minute: a step needs a range: 0-59/5 in place of '0/5'"),
        ("*/0 * * * *", "minute: expected a step from 1 to 59, got 0"),
        ("*/61 * * * *", "minute: expected a step from 1 to 59, got 61"),
        ("*,5 * * * *", "minute: expected numbers, ranges"),
        ("5, * * * *", "minute: expected numbers, ranges"),
        ("0 3 */16 * 1", "'*/16' means 'and' to some crons and 'or' to others; write the days out: 1,17"),
        ("0 3 1 * */4", "'*/4' means 'and' to some crons and 'or' to others; write the days out: 0,4"),
        ("0 3 30 2 *", "it never comes: no such month has 30 days"),
        ("0 3 31 4,6,9,11 *", "it never comes"),
        ("٣ 3 * * 1", "minute: expected numbers, ranges"),
        ("0 3 * * 1\n* * * * *", "got 10"),
    ],
)
def test_a_line_that_is_wrong_or_doubtful_is_refused_with_the_reason(line: str, why: str) -> None:
    with pytest.raises(SpecError, match=re.escape(why)) as caught:
        read_cron(line)
    assert len(str(caught.value).splitlines()) == 1

"""A cron line, read strictly: what one cron takes in another sense than the next is refused."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from jobs.problem import Problem, SpecError

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_ITEM = re.compile(r"(?P<first>\*|[A-Za-z0-9]+)(?:-(?P<last>[A-Za-z0-9]+))?(?:/(?P<step>[0-9]+))?")
_LONGEST_WAIT = timedelta(days=366 * 9)  # from 28 February 2096 to 29 February 2104


@dataclass(frozen=True, slots=True)
class Cron:
    """When a job runs: at these minutes of these hours of the days that fit.

    A day fits when its month does, and its number and its day of the week; where both of these are restricted, either
    is enough, as in every cron.

    Attributes:
        text: the line in numbers, in the form that crond, Kubernetes and KubeRay take in the same sense.
        minutes: 0 to 59, in order.
        hours: 0 to 23, in order.
        days: of the month, 1 to 31, in order.
        months: 1 to 12, in order.
        weekdays: 0 (Sunday) to 6, in order.
        either_day: a day fits by its number or by its day of the week.
    """

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    either_day: bool

    def fits(self, day: date) -> bool:
        """Whether the job runs on a day."""
        numbered, named = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and (numbered or named if self.either_day else numbered and named)

    def next_after(self, moment: datetime) -> datetime:
        """The first run after a moment; both are local time without a zone."""
        day = moment.date()
        while True:
            if self.fits(day):
                for hour in self.hours:
                    for minute in self.minutes:
                        found = datetime.combine(day, datetime.min.time().replace(hour=hour, minute=minute))
                        if found > moment:
                            return found
            day += timedelta(days=1)
            if day - moment.date() > _LONGEST_WAIT:
                # `read_cron` refuses lines without a day.
                raise ValueError(f"{self.text} never comes")


@dataclass(frozen=True, slots=True)
class _Field:
    """One of the five, read.

    Attributes:
        text: in numbers.
        values: in order.
        stepped_star: `*/n`: all but restricted for some crons, and restricted for others.
        every: nothing is restricted.
    """

    text: str
    values: tuple[int, ...]
    stepped_star: bool
    every: bool


def read_cron(line: str) -> Cron:
    """Reads a line of five fields: minute, hour, day of the month, month, day of the week.

    Args:
        line: numbers, names of months and days, `*`, ranges (`1-5`), steps (`*/15`, `10-20/5`) and lists (`1,15`).

    Raises:
        SpecError: it is not such a line, it means different things to different crons, or it never comes.
    """
    words = line.split()
    if words and words[0] in _MACROS:
        raise _refused(line, f"write it as '{_MACROS[words[0]]}'")
    if words and words[0].startswith("@"):
        raise _refused(line, "a rerun needs times, such as '0 3 * * 1'")
    if len(words) != 5:
        more = "; cron knows no seconds and no years" if len(words) in (6, 7) else ""
        expected = "expected five fields (minute, hour, day of the month, month, day of the week), such as '0 3 * * 1'"
        raise _refused(line, f"{expected}; got {len(words)}{more}")
    minutes = _field(line, words[0], "minute", 0, 59)
    hours = _field(line, words[1], "hour", 0, 23)
    days = _field(line, words[2], "day of the month", 1, 31)
    months = _field(line, words[3], "month", 1, 12, _MONTHS, 1)
    weekdays = _field(line, words[4], "day of the week", 0, 7, _WEEKDAYS, 0)
    weekdays = _without_seven(weekdays)
    for stepped, other in ((days, weekdays), (weekdays, days)):
        if stepped.stepped_star and not other.every:
            raise _refused(
                line,
                f"with both days restricted, '{stepped.text}' means 'and' to some crons and 'or' to others; "
                f"write the days out: {','.join(map(str, stepped.values))}",
            )
    text = " ".join(field.text for field in (minutes, hours, days, months, weekdays))
    numbers, either = days.values, not days.every and not weekdays.every
    if not any(_longest(month) >= min(numbers) for month in months.values):
        if not either:
            raise _refused(line, f"it never comes: no such month has {min(numbers)} days")
        # 31 February or a Monday: the Mondays alone.
        numbers, either = tuple(range(1, 32)), False
    return Cron(text, minutes.values, hours.values, numbers, months.values, weekdays.values, either)


def _field(
    line: str, text: str, what: str, low: int, high: int, names: tuple[str, ...] = (), first_name: int = 0
) -> _Field:
    """Reads one field; `first_name` is the number of the first of the names."""

    def number(word: str) -> int:
        if word.isascii() and word.isdigit():
            value = int(word)
        elif word.lower() in names:
            value = names.index(word.lower()) + first_name
        else:
            known = f", or {names[0]} to {names[-1]}" if names else ""
            raise _refused(line, f"{what}: expected a number from {low} to {high}{known}, got '{word}'")
        if not low <= value <= high:
            raise _refused(line, f"{what}: expected a number from {low} to {high}, got {value}")
        return value

    values: set[int] = set()
    written: list[str] = []
    stepped = False
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if match is None or (match["first"] == "*" and (match["last"] or "," in text)):
            raise _refused(line, f"{what}: expected numbers, ranges such as 1-5, steps such as */2, got '{text}'")
        step = int(match["step"] or 1)
        if match["first"] == "*":
            first, last = low, 6 if high == 7 else high
        else:
            first = number(match["first"])
            last = number(match["last"]) if match["last"] else first
            if match["step"] and not match["last"]:
                raise _refused(line, f"{what}: a step needs a range: {first}-{high}/{step} in place of '{item}'")
        if last < first:
            raise _refused(line, f"{what}: '{item}' runs backwards; write {first}-{high},{low}-{last}")
        if not 1 <= step <= high:
            raise _refused(line, f"{what}: expected a step from 1 to {high}, got {step}")
        values.update(range(first, last + 1, step))
        stepped = match["first"] == "*" and step > 1
        span = "*" if match["first"] == "*" else f"{first}-{last}" if match["last"] else str(first)
        written.append(f"{span}/{step}" if step > 1 else span)
    # A full range in numbers is a restriction: every cron looks at the star alone.
    return _Field(",".join(written), tuple(sorted(values)), stepped, text in ("*", "*/1"))


def _without_seven(field: _Field) -> _Field:
    """Sunday as 0 alone: Kubernetes does not take the 7 that crond does."""
    if 7 not in field.values:
        return field
    values = tuple(sorted({value % 7 for value in field.values}))
    return _Field(",".join(map(str, values)), values, stepped_star=False, every=False)


def _longest(month: int) -> int:
    """Days of a month in a leap year."""
    return calendar.monthrange(2024, month)[1]


def _refused(line: str, why: str) -> SpecError:
    return SpecError([Problem(f"--cron '{line}'", None, "", why)])

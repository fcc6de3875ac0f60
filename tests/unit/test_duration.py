"""Times in words."""

from __future__ import annotations

import re

import pytest

from jobs.duration import DURATION, said_duration, seconds_of


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (60, "60 s"), (61, "61 s"), (120, "2 min"), (5400, "90 min"), (43200, "12 h"), (604800, "7 d")],
)
def test_a_time_is_said_exactly(seconds: int, said: str) -> None:
    assert said_duration(seconds) == said


@pytest.mark.parametrize(
    ("text", "seconds"), [("12", 43200), ("12h", 43200), ("90m", 5400), ("2d", 172800), ("30s", 30)]
)
def test_a_time_without_a_unit_is_in_hours(text: str, seconds: int) -> None:
    match = re.fullmatch(DURATION, text)
    assert match is not None and seconds_of(match["number"], match["unit"]) == seconds


@pytest.mark.parametrize("text", ["", "0", "0h", "-1h", "1.5h", "h", "12 h", "1w", "1000000"])
def test_what_is_no_time_is_not_read(text: str) -> None:
    assert re.fullmatch(DURATION, text) is None

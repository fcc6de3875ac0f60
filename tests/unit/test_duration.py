"""Times in words."""

from __future__ import annotations

import pytest

from jobs.duration import said_duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (60, "60 s"), (61, "61 s"), (120, "2 min"), (5400, "90 min"), (43200, "12 h"), (604800, "7 d")],
)
def test_a_time_is_said_exactly(seconds: int, said: str) -> None:
    assert said_duration(seconds) == said

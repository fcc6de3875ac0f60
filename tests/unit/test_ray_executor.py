"""The executor on Ray, as far as no Ray is needed."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.profile import Profile
from cluster.ray_executor import RayExecutor


class StopError(Exception):
    """What a signal's handler raises."""


def test_a_signal_that_reaches_ray_s_own_code_stops_the_run_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def waiting(self: RayExecutor, *rest: Any) -> None:
        # As `ray.wait` does where a signal comes while it has something to return.
        raise SystemError("returned a result with an exception set") from StopError()

    monkeypatch.setattr(RayExecutor, "_run", waiting)
    with pytest.raises(StopError):
        RayExecutor(Profile()).run(None, None, print)  # type: ignore[arg-type]


def test_other_errors_of_the_system_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: RayExecutor, *rest: Any) -> None:
        raise SystemError("bad internal call")

    monkeypatch.setattr(RayExecutor, "_run", broken)
    with pytest.raises(SystemError, match="bad internal call"):
        RayExecutor(Profile()).run(None, None, print)  # type: ignore[arg-type]

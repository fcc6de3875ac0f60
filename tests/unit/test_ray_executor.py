"""The executor on Ray, as far as no Ray is needed."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import pytest

from cluster.profile import Profile
from cluster.ray_executor import RayExecutor, _hearing_sigterm


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


def rays_handler(number: int, frame: object) -> None:
    """As Ray's own."""
    sys.exit(number)


rays_handler.__module__ = "ray._private.worker"


@pytest.mark.parametrize("lost", [True, False])
def test_a_sigterm_during_ray_s_start_reaches_the_callers_handler(lost: bool) -> None:
    def handler(number: int, frame: object) -> None:
        raise StopError

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(StopError), _hearing_sigterm():
            signal.signal(signal.SIGTERM, rays_handler)  # as `ray.init` does
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            except SystemExit:
                # As Python does with what is raised in a hook of `fork`.
                if not lost:
                    raise
        assert signal.getsignal(signal.SIGTERM) is handler
        with _hearing_sigterm():
            signal.signal(signal.SIGTERM, rays_handler)
        assert signal.getsignal(signal.SIGTERM) is handler
        # What the first signal of another kind has put there stays.
        with _hearing_sigterm():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)

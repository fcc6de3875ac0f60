"""An address without a cluster is told at once; Ray itself would try for minutes."""

from __future__ import annotations

import socket

import pytest

from cluster.reach import LOOK_EVERY, SILENCE, Head, check_listening
from pipeline.errors import FatalError, RetryableError


@pytest.fixture
def port() -> int:
    """One that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_an_address_where_nobody_listens_is_one_line(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        FatalError, match=rf"127\.0\.0\.1:{port} cannot be reached: .*refused.*is the cluster up"
    ) as told:
        check_listening(f"127.0.0.1:{port}")
    assert "\n" not in str(told.value)
    monkeypatch.setenv("RAY_ADDRESS", f"localhost:{port}")
    with pytest.raises(FatalError, match=f"localhost:{port}"):
        check_listening("auto")
    with pytest.raises(FatalError, match="cannot be reached"):
        check_listening("no-such-host.invalid:6379")
    with pytest.raises(FatalError, match="cannot be reached"):
        check_listening("127.0.0.1:99999")


def test_an_address_where_somebody_listens_and_what_ray_resolves_itself_are_left_to_ray(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", port)):
        check_listening(f"127.0.0.1:{port}")
    for address in ("auto", "local", "ray://head:10001"):
        check_listening(address)


def test_a_head_is_given_up_when_it_is_asked_for_so_long_in_vain(port: int) -> None:
    now = 0.0
    head = Head(f"127.0.0.1:{port}", lambda: now)
    # A machine that slept, or a driver that waited for a store, has not asked: that says nothing of the head.
    now += 100 * SILENCE
    head.check()
    while now < 100 * SILENCE + SILENCE - LOOK_EVERY:
        now += LOOK_EVERY
        head.check()
    with socket.create_server(("127.0.0.1", port)):
        now += LOOK_EVERY
        head.check()
    now += LOOK_EVERY
    head.check()
    assert not head.is_gone
    now += SILENCE + 1
    with pytest.raises(RetryableError, match=rf"has not answered for {SILENCE + 1:.0f} s \(.*refused"):
        head.check()
    assert head.is_gone

"""An address without a cluster is told at once; Ray itself would try for minutes."""

from __future__ import annotations

import socket

import pytest

from cluster.reach import check_listening
from pipeline.errors import FatalError


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

"""A whole job into Google Cloud Storage, as an emulator of its protocol speaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import gcp_storage_emulator.server as emulator
import pytest

from jobs.cli import MISTAKE, OK, main
from pipeline.neighbour import CLAIMS
from pipeline.store import open_output

Write = Callable[..., Path]


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """How an address names the emulator, which has one bucket, `bucket`."""
    # As it comes it answers one connection at a time, and a reader that keeps one open would wait for itself.
    monkeypatch.setattr(emulator.server, "HTTPServer", ThreadingHTTPServer)
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
    server.start()
    port = server._api._httpd.socket.getsockname()[1]
    yield f"?endpoint_override=127.0.0.1:{port}&scheme=http&retry_limit_seconds=5"
    server.stop()


def test_a_job_in_a_bucket_is_written_and_read(
    options: str, write_spec: Write, write_profile: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"gs://anonymous@bucket/jobs/first{options}"
    spec = write_spec(
        output=address,
        dataset={"source": "digits", "limit": 32},
        methods=["random", "gradient"],
        metrics=[{"name": "deletion", "step": 256}],
        report={"samples": 1},
    )
    run = ["run", str(spec), "--profile", str(write_profile())]
    assert main(run) == OK
    assert "/jobs/first/report/index.html is always the latest" in capsys.readouterr().out
    output = open_output(address)
    assert output.maps().count_rows() == len(output.scores().to_pandas()) == 2 * 32
    assert output.names(CLAIMS) == []
    assert main(run) == OK
    assert "nothing to do" in capsys.readouterr().out
    assert main([*run, "--fresh", "--set", "metrics=[]"]) == OK
    assert output.maps().count_rows() == 2 * 32 and not output.scores().num_columns
    assert main([*run, "--set", f"output=gs://anonymous@nowhere/out{options}"]) == MISTAKE
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert "@nowhere/out" in told and told.endswith("there is no such bucket")

"""What several tests share: the data folder, and the option that writes goldens."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

# Ray reads it once, when it is imported.
os.environ["RAY_AUTH_MODE"] = "token"

SHARED = Path(os.environ.get("HEATLINE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the goldens anew")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images and weights; the test is skipped where they are absent."""
    if not SHARED.is_dir():
        pytest.skip("no folder with real data")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def ray_token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The token of every Ray that a test starts; that of the account stays out of it."""
    file = tmp_path_factory.mktemp("ray") / "token"
    file.touch(mode=0o600)
    file.write_text(secrets.token_hex(32))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_AUTH_TOKEN", raising=False)
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
        yield file.read_text()

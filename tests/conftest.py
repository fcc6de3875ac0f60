"""What several tests share: the data folder, and the option that writes goldens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("HEATLINE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the goldens anew")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images and weights; the test is skipped where they are absent."""
    if not SHARED.is_dir():
        pytest.skip("no folder with real data")
    return SHARED

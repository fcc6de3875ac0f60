"""The manifests for Kubernetes, word for word.

`pytest tests/golden --update-golden` writes the files anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from manifest_case import CASES, manifest_text

FOLDER = Path(__file__).parent


@pytest.mark.parametrize("case", CASES)
def test_manifest(case: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    file, found = FOLDER / f"manifest-{case}.yaml", manifest_text(case, tmp_path)
    if request.config.getoption("--update-golden"):
        file.write_text(found)
    assert found == file.read_text()

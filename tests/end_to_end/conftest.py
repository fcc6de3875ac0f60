"""A small real job on the embedded digits."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from fault_cluster import SmallCluster

METHODS = [
    "random",
    "gradient",
    "gradient_x_input",
    {"name": "integrated_gradients", "steps": 4},
    "grad_cam",
    {"name": "agi", "classes": 2, "steps": 3},
]
METRICS = [
    {"name": "deletion", "step": 128},
    {"name": "insertion", "step": 128},
    {"name": "mar", "grid": 8},
]


@pytest.fixture
def write_spec(tmp_path: Path) -> Callable[..., Path]:
    """Writes a spec with changed keys and returns its path."""

    def write(name: str = "job", **changes: object) -> Path:
        spec = {
            "version": 1,
            "name": name,
            "output": str(tmp_path / "out"),
            "dataset": {"source": "digits", "limit": 40},
            "models": [{"name": "mnist_cnn2", "weights": "random"}],
            "methods": METHODS,
            "metrics": METRICS,
            "report": {"samples": 2},
            **changes,
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(spec))
        return path

    return write


@pytest.fixture
def write_profile(tmp_path: Path) -> Callable[..., Path]:
    """Writes a profile and returns its path."""

    def write(name: str = "profile", **keys: object) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"executor": "local", "in_flight": 2, "rows": 16, **keys}))
        return path

    return write


@pytest.fixture(scope="session")
def cluster() -> Iterator[SmallCluster]:
    """A Ray cluster of two nodes, one CPU each. Ray keeps sockets in its folder, whose path must be short."""
    with (
        tempfile.TemporaryDirectory(prefix="hl-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        SmallCluster(Path(folder)) as both,
    ):
        yield both

"""Which code runs: a digest of the program's own files, so that no worker works with another copy."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pipeline

ROOMS = ("pipeline", "cluster", "jobs")
"""The packages of the program."""


@cache
def code_digest() -> str:
    """Hash of every Python file of `pipeline`, `cluster` and `jobs`, 16 hexadecimal digits."""
    found = hashlib.sha256()
    for room in ROOMS:
        # Side by side where the program is installed, each in a folder of its own where Ray has brought them.
        spec = find_spec(room)
        for folder in (spec.submodule_search_locations if spec is not None else None) or ():
            for file in sorted(Path(folder).rglob("*.py")):
                found.update(f"{room}/{file.relative_to(folder).as_posix()}\0".encode())
                found.update(file.read_bytes())
    return found.hexdigest()[:16]


def code_place() -> str:
    """Where this process imported `pipeline` from."""
    return str(Path(pipeline.__file__).parent)

"""Which code runs: a digest of the program's own files, so that no worker works with another copy."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import pipeline

ROOMS = ("pipeline", "cluster", "jobs")
"""The packages of the program, side by side."""


@cache
def code_digest() -> str:
    """Hash of every Python file of `pipeline`, `cluster` and `jobs`, 16 hexadecimal digits."""
    found = hashlib.sha256()
    place = Path(pipeline.__file__).parent.parent
    for room in (place / name for name in ROOMS):
        for file in sorted(room.rglob("*.py")):
            found.update(f"{room.name}/{file.relative_to(room).as_posix()}\0".encode())
            found.update(file.read_bytes())
    return found.hexdigest()[:16]


def code_place() -> str:
    """Where this process imported `pipeline` from."""
    return str(Path(pipeline.__file__).parent)

"""What a submitted job is made of: the program, the job's own files, and the command that runs them on the cluster."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster.code import ROOMS, code_digest, code_place

START_FILE = "heatline.sh"
FACTS_FILE = "submission.json"
_LONGEST_NAME = 100

_START = """\
# Written by heatline submit: runs the program that came along, with the first Python here that has what it needs.
for python in {pythons}; do
  if "$python" -c 'import sys, importlib.util as util; sys.exit(not all(map(util.find_spec, ("ray", "torch"))))' \\
    2>/dev/null
  then
    exec "$python" -m {module} "$@"
  fi
done
echo "no Python with Ray and PyTorch on $(uname -n): tried" {pythons} "(heatline submit --python names another)" >&2
exit 2
"""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A job that is to be submitted.

    Attributes:
        name: the spec's name.
        output: the spec's output, for people.
        profile: the profile's name, for people.
        files: texts by file name: what the job is.
        arguments: the words after `heatline` that run it, among its files.
        module: the module that takes the words on the cluster.
        pythons: interpreters to try there, in order: paths, or names to be looked up.
        private: further texts by file name, which only the account of the cluster can read. No part of the identity.
        facts: further facts for the other side, as JSON has them, likewise.
    """

    name: str
    output: str
    profile: str
    files: Mapping[str, str]
    arguments: Sequence[str]
    module: str
    pythons: Sequence[str]
    private: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def code(self) -> str:
        """Digest of the program that travels; see `code_digest`."""
        return code_digest()

    @property
    def identifier(self) -> str:
        """The job's id: its name, and a hash of all that bears on what it does."""
        content = json.dumps([dict(self.files), list(self.arguments), self.code], sort_keys=True)
        # Ray names a file after it.
        return f"{self.name[:_LONGEST_NAME]}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"


@dataclass(frozen=True, slots=True)
class Packed:
    """A parcel as Ray takes it: the job's folder, the program's packages, and the command to run in the folder."""

    working_folder: Path
    rooms: tuple[Path, ...]
    entrypoint: str


def pack(parcel: Parcel, identifier: str, folder: Path) -> Packed:
    """Write a parcel into an empty folder.

    The program lies apart from the job's files: Ray knows a package by its content, so that nodes which have run this
    program before need not fetch or compile it again.

    Args:
        parcel: the job.
        identifier: the id that this attempt gets.
        folder: where.
    """
    working = folder / "job"
    working.mkdir()
    for name, text in parcel.files.items():
        (working / name).write_text(text, encoding="utf-8")
    for name, text in parcel.private.items():
        # Ray's packages keep the mode.
        (working / name).touch(mode=0o600)
        (working / name).write_text(text, encoding="utf-8")
    facts = {**parcel.facts, "id": identifier, "code": parcel.code, "place": code_place()}
    (working / FACTS_FILE).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    start = _START.format(pythons=shlex.join(parcel.pythons), module=parcel.module)
    (working / START_FILE).write_text(start, encoding="utf-8")
    rooms = tuple(folder / room for room in ROOMS)
    source = Path(code_place()).parent
    for room in rooms:
        shutil.copytree(source / room.name, room, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    return Packed(working, rooms, shlex.join(["sh", START_FILE, *parcel.arguments]))

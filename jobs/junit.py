"""JUnit's XML, which continuous integration reads: what was checked, and what failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pipeline.credential import without_credentials
from pipeline.errors import FatalError
from pipeline.plain_text import plain_text


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that was checked.

    Attributes:
        group: what it belongs to, such as a model; JUnit's `classname`.
        name: what it is.
        seconds: what it took.
        failure: why it failed, lines; empty where it passed.
        skipped: why it was not checked; empty where it was.
    """

    group: str
    name: str
    seconds: float = 0.0
    failure: str = ""
    skipped: str = ""


def write_junit(file: Path, suite: str, cases: Sequence[Case], started: str | None = None) -> None:
    """Write one suite of cases. What XML cannot hold, not even escaped, is spelled out.

    Args:
        file: where; folders are made.
        suite: its name.
        cases: what was checked.
        started: when, in ISO form.

    Raises:
        FatalError: the file cannot be written.
    """
    counts = {
        "tests": len(cases),
        "failures": sum(bool(one.failure) for one in cases),
        "errors": 0,
        "skipped": sum(bool(one.skipped) for one in cases),
    }
    numbers = {name: str(count) for name, count in counts.items()}
    time = f"{sum(one.seconds for one in cases):.3f}"
    root = ElementTree.Element("testsuites", {"name": "heatline", **numbers, "time": time})
    stamp = {"timestamp": started} if started else {}
    node = ElementTree.SubElement(root, "testsuite", {"name": plain_text(suite), **numbers, "time": time, **stamp})
    for one in cases:
        names = {"classname": plain_text(one.group), "name": plain_text(one.name), "time": f"{one.seconds:.3f}"}
        case = ElementTree.SubElement(node, "testcase", names)
        if one.failure:
            message = {"message": plain_text(one.failure.splitlines()[0]), "type": "failure"}
            ElementTree.SubElement(case, "failure", message).text = plain_text(one.failure)
        if one.skipped:
            ElementTree.SubElement(case, "skipped", {"message": plain_text(one.skipped)})
    ElementTree.indent(root)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        ElementTree.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise FatalError(f"--junit {file}: cannot be written: {error.strerror or error}") from error


def run_cases(record: Mapping[str, Any]) -> list[Case]:
    """A case for each thing that a run made: it fails where units of it were lost, or the run stopped.

    Args:
        record: the run's record.
    """
    lost: dict[str, list[str]] = {}
    for unit in record["lost"]:
        lost.setdefault(unit["variant"], []).append(f"samples {unit['start']} to {unit['stop'] - 1}: {unit['reason']}")
    seconds = {one["path"]: one["seconds"] for one in record["timings"]}
    cases = [
        Case(_stage(one), _name(one), seconds.get(one["path"], 0.0), failure="\n".join(lost.get(one["path"], ())))
        for one in record["variants"]
    ]
    return [*cases, Case("run", str(record["name"]), failure=_trouble(record))]


def refused_cases(name: str, reason: str) -> list[Case]:
    """The one case of a run that did not begin, which fails."""
    return [Case("run", name, failure=without_credentials(reason))]


def _trouble(record: Mapping[str, Any]) -> str:
    """What is wrong with the run as a whole; empty where nothing is."""
    if record["status"] == "done":
        return ""
    if record["status"] != "failed":
        return f"the run is {record['status']}" + (f": {record['reason']}" if record.get("reason") else "")
    if record.get("reason"):
        return str(record["reason"])
    return f"{record['failures']} samples failed, {len(record['lost'])} units were lost"


def _stage(variant: Mapping[str, Any]) -> str:
    return ".".join(str(part) for part in (variant["stage"], variant.get("model")) if part)


def _name(variant: Mapping[str, Any]) -> str:
    """What is told apart within a stage and model."""
    cell = variant.get("cell") or {}
    parts = [variant.get("method"), variant.get("metric")]
    if variant.get("split", "explained") != "explained":
        parts.append(variant["split"])
    parts += [f"{name} {cell[name]:g}" for name in ("fraction", "repeat") if name in cell]
    return " ".join(str(part) for part in parts if part) or str(variant["stage"])

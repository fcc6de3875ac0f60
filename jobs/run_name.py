"""How a command is told which run: an output, `OUTPUT@RUN`, or the path of a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import FatalError
from pipeline.store import Output, open_output

_RECORDS = "runs"


def find_run(text: str) -> tuple[Output, str]:
    """The output and the name of a run.

    Args:
        text: an output, which means its latest run; `OUTPUT@RUN` with a name that `heatline history` shows; or the
            record of a run, `OUTPUT/runs/NAME.json`.

    Raises:
        FatalError: there is no such output, or no such run in it.
    """
    folder, _, file = text.rpartition("/")
    if file.endswith(".json") and (folder == _RECORDS or folder.endswith(f"/{_RECORDS}")):
        return _run(folder.removesuffix(_RECORDS).rstrip("/") or ("/" if folder.startswith("/") else "."), file[:-5])
    place, _, name = text.rpartition("@")
    if not place or "/" in name:
        return _run(text, None)
    try:
        return _run(text, None)
    except FatalError:
        # No output has this name as a whole; what follows the last @ is a run.
        return _run(place, name)


def earlier_run(output: Output, name: str) -> str | None:
    """Name of the nearest run before another one that has figures; None where there is none.

    Runs that found everything as another had left it count as that one: what moved is told against the run before it.
    """
    names = output.runs()
    before = names[: names.index(name)]
    origin = _origin(output.run(name))
    for record in output.records(reversed(before)):
        if record.get("summary") and _origin(record) != origin:
            return str(record["run"])
    return None


def _origin(record: Mapping[str, Any]) -> str:
    """The run whose figures a record has."""
    return str(record.get("same_as") or record["run"])


def _run(place: str, name: str | None) -> tuple[Output, str]:
    output = open_output(place)
    names = output.runs()
    if not names or (name is not None and name not in names):
        listed = f"; there are {', '.join(names)}" if names else ""
        raise FatalError(f"{output.uri}: no run {name or 'yet'}{listed}")
    return output, name or names[-1]

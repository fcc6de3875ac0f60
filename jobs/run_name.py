"""How a command is told which run: an output, `OUTPUT@RUN`, or the path of a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.headline import is_control
from jobs.left_out import LeftOut
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


def earlier_run(output: Output, name: str, left_out: LeftOut = lambda _: None) -> str | None:
    """Name of the run that another one is held against: the nearest before it of the same job.

    Jobs may share an output; a run is of the same job where its spec has the same name. The nearest of them that has a
    figure in common with this run is taken, else the nearest of them; where there is none, the nearest run of any job
    that has a figure in common, over data of the same source. Runs without figures do not count, and those that found
    everything as another had left it count as that one: what moved is told against the run before it.

    Args:
        output: where both are.
        name: the run.
        left_out: is told of records before it that cannot be read.

    Returns:
        None where there is no such run.

    Raises:
        FatalError: the record of the run itself cannot be read.
    """
    names = output.runs()
    this = output.run(name)
    known, of_the_job, of_another = _figures(this), None, None
    for record in output.records(reversed(names[: names.index(name)]), left_out):
        if not record["summary"] or _origin(record) == _origin(this):
            continue
        shares = bool(_figures(record) & known)
        if record["name"] == this["name"]:
            if shares:
                return str(record["run"])
            of_the_job = of_the_job or str(record["run"])
        elif shares and _source(record) == _source(this):
            of_another = of_another or str(record["run"])
    return of_the_job or of_another


def _figures(record: Mapping[str, Any]) -> set[tuple[str, str, str, str]]:
    """What a run measured, the random control aside: any two jobs have that in common."""
    return {
        (row["model"], row["method"], row["metric"], row["measure"])
        for row in record["summary"]
        if not is_control(record, row["method"])
    }


def _source(record: Mapping[str, Any]) -> object:
    return (record.get("dataset") or {}).get("source")


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

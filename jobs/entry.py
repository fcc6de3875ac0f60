"""Entries of the lists of methods and metrics: bare names, ids of one's own, and sweeps."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field

from jobs.document import Document
from jobs.expectation import got
from jobs.problem import Place, Problem
from pipeline.plain_text import plain_line

ENTRY_KEYS = ("id", "sweep")
"""Keys of an entry that are not parameters of the method or metric."""

CAPTUM = "captum:"
MAX_GRID = 1000
_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_UNNAMED = "?"


@dataclass(frozen=True, slots=True)
class Entry:
    """One method or metric: of a sweep, one point of its grid.

    Attributes:
        id: what results call it.
        config: its name and parameters as written, or whatever stood in their place.
        place: where the entry stands, such as ("methods", 1).
        swept: which of a swept parameter's values it has, by parameter.
    """

    id: str
    config: object
    place: Place
    swept: dict[str, int] = field(default_factory=dict)


def expand(document: Document, key: str, items: list[object]) -> tuple[list[Entry], list[Problem]]:
    """Turns a list as written into one entry a method or metric.

    Args:
        document: for the lines of problems.
        key: `methods` or `metrics`.
        items: the list under that key.

    Returns:
        The entries, in order, and what is wrong with ids and sweeps; names and parameters are not looked at.
    """
    entries: list[Entry] = []
    problems: list[Problem] = []
    for index, item in enumerate(items):
        place = (key, index)
        written = {"name": item} if isinstance(item, str) else item
        if not isinstance(written, dict):
            entries.append(Entry(_UNNAMED, written, place))
            continue
        name = _identity(written)
        if "id" in written and not _PLAIN_ID.fullmatch(name):
            message = f"expected letters, digits and . _ + -, got {got(written['id'])}"
            problems.append(document.problem((*place, "id"), message))
        parameters = _spelled_out({name: value for name, value in written.items() if name not in ENTRY_KEYS})
        if "sweep" not in written:
            entries.append(Entry(name, parameters, place))
            continue
        faults = _sweep_faults(document, place, written["sweep"], parameters)
        problems += faults
        entries += [Entry(_UNNAMED, parameters, place)] if faults else _grid(name, parameters, place, written["sweep"])
    return entries, problems + _same_ids(document, key, entries)


def _spelled_out(parameters: dict[str, object]) -> dict[str, object]:
    """`captum:NAME` is short for the method `captum` with that class."""
    name = parameters.get("name")
    if isinstance(name, str) and name.startswith(CAPTUM) and "attribution" not in parameters:
        return {**parameters, "name": CAPTUM[:-1], "attribution": name.removeprefix(CAPTUM)}
    return parameters


def _identity(written: dict[str, object]) -> str:
    identity = written.get("id", written.get("name"))
    return identity if isinstance(identity, str) else _UNNAMED


def _sweep_faults(document: Document, place: Place, sweep: object, parameters: dict[str, object]) -> list[Problem]:
    here = (*place, "sweep")
    if not isinstance(sweep, dict) or not sweep:
        return [document.problem(here, f"expected parameters with lists of values, got {got(sweep)}")]
    faults = []
    for parameter, values in sweep.items():
        if parameter == "name" or parameter in ENTRY_KEYS:
            message = f"'{parameter}' is not a parameter; a sweep varies parameters of one method or metric"
        elif not isinstance(values, list) or not values:
            message = f"expected a list of values, got {got(values)}"
        elif parameter in parameters:
            message = f"'{parameter}' is also set beside the sweep; keep one of the two"
        elif twice := [text for text, count in Counter(map(_spelled, values)).items() if count > 1]:
            message = f"the value {twice[0]} stands twice"
        else:
            continue
        faults.append(document.problem((*here, parameter), message))
    size = math.prod(len(values) for values in sweep.values() if isinstance(values, list))
    if size > MAX_GRID:
        faults.append(document.problem(here, f"a grid of {size} points; at most {MAX_GRID} are taken"))
    return faults


def _grid(name: str, parameters: dict[str, object], place: Place, sweep: dict[str, list[object]]) -> list[Entry]:
    entries = []
    for point in itertools.product(*(range(len(values)) for values in sweep.values())):
        swept = dict(zip(sweep, point, strict=True))
        chosen = {parameter: sweep[parameter][index] for parameter, index in swept.items()}
        text = ",".join(f"{parameter}={_spelled(value)}" for parameter, value in chosen.items())
        entries.append(Entry(f"{name}[{text}]", {**parameters, **chosen}, place, swept))
    return entries


def _spelled(value: object) -> str:
    """A swept value inside an id: no white space, no slash, nothing that a terminal obeys."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return re.sub(r"[\s/\\]+", "_", plain_line(text))


def _same_ids(document: Document, key: str, entries: list[Entry]) -> list[Problem]:
    problems = []
    for name, count in Counter(entry.id for entry in entries).items():
        if count > 1 and _UNNAMED not in name:
            places = list(dict.fromkeys(entry.place for entry in entries if entry.id == name))
            problems += [
                document.problem(place, f"two {key} are called '{name}': give one of them an id")
                for place in places[1:]
            ]
    return problems

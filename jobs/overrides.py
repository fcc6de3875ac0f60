"""`--set KEY=VALUE`: changes one place of a spec before it is validated."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from jobs.document import Document, Origin, parse_document
from jobs.problem import Place, Problem, SpecError, spelled


class _RefusedError(Exception):
    """The way to the key cannot be walked; carries the place where it ends and why."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = place


def apply_overrides(document: Document, overrides: Sequence[str], folder: Path) -> list[Problem]:
    """Sets the values that `--set` names, in order.

    Args:
        document: changed in place; a set value's origin is its option.
        overrides: each KEY=VALUE; the key is dotted, with numbers for list entries (`methods.1.steps`), the
            value is YAML. A key that a mapping lacks is added; a method or metric given by its bare name
            becomes a mapping.
        folder: where relative paths in the values start: the current directory.

    Returns:
        What could not be set.
    """
    problems = []
    for text in overrides:
        option = f"--set {text}"
        try:
            _apply(document, text, Origin(option, None, folder))
        except _RefusedError as error:
            problems.append(Problem(option, None, spelled(error.place), str(error)))
        except SpecError as error:
            problems += [Problem(option, None, "", problem.message) for problem in error.problems]
    return problems


def _apply(document: Document, text: str, origin: Origin) -> None:
    key, equals, written = text.partition("=")
    steps = key.strip().split(".")
    if not equals or not all(steps):
        raise _RefusedError((), "expected KEY=VALUE, such as methods.1.steps=20")
    value = parse_document(written, origin.file, origin.folder).value
    container = document.value
    place: Place = ()
    for step, following in itertools.pairwise(steps):
        place, container = _enter(container, place, step, following)
    if isinstance(container, list):
        index = _index(container, place, steps[-1])
        container[index] = value
        place = (*place, index)
    elif isinstance(container, dict):
        container[steps[-1]] = value
        place = (*place, steps[-1])
    else:
        raise _RefusedError(place, "this is a plain value, with no keys to set")
    for inner in [known for known in document.origins if known[: len(place)] == place]:
        del document.origins[inner]
    document.origins[place] = origin
    # Mappings on the way that nobody wrote are the option's as well.
    for length in range(1, len(place)):
        document.origins.setdefault(place[:length], origin)


def _enter(container: object, place: Place, step: str, following: str) -> tuple[Place, object]:
    """The value one step further in; a bare name becomes a mapping, an absent mapping an empty one."""
    if isinstance(container, list):
        index = _index(container, place, step)
        if isinstance(container[index], str) and place in (("methods",), ("metrics",)):
            container[index] = {"name": container[index]}
        return (*place, index), container[index]
    if isinstance(container, dict):
        if container.get(step) is None:
            if following.isdigit():
                raise _RefusedError((*place, step), f"there is no such list; set it whole: {step}=[…]")
            container[step] = {}
        return (*place, step), container[step]
    raise _RefusedError(place, "this is a plain value, with no keys to set")


def _index(container: list[object], place: Place, step: str) -> int:
    if step.isdecimal() and int(step) < len(container):
        return int(step)
    known = f"a number from 0 to {len(container) - 1}" if container else "nothing: the list is empty"
    named = [i for i, entry in enumerate(container) if step in _names(entry)]
    mend = f"; '{step}' is number {named[0]}" if named else ""
    raise _RefusedError(place, f"expected {known}, got '{step}'{mend}")


def _names(entry: object) -> list[object]:
    return [entry.get("id"), entry.get("name")] if isinstance(entry, dict) else [entry]

"""A YAML file as plain values that remember the line they were written on."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from jobs.problem import Place, Problem, SpecError, spelled

MAX_BYTES = 2**20
MAX_VALUES = 20_000
MAX_DEPTH = 20


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written.

    Attributes:
        file: the file as the user named it, or the `--set` option.
        line: line in the file, from 1; None for an option.
        folder: where relative paths in the value start.
    """

    file: str
    line: int | None
    folder: Path


@dataclass(slots=True)
class Document:
    """A spec or profile before it is validated.

    Attributes:
        value: mappings, lists, text, numbers, true, false and None, as written.
        origins: where each place was written; a place that is not there was written with its parent.
    """

    value: object
    origins: dict[Place, Origin] = field(default_factory=dict)

    def origin(self, place: Place) -> Origin:
        """Where the value at a place, or the nearest mapping or list around it, was written."""
        while place and place not in self.origins:
            place = place[:-1]
        return self.origins[place]

    def problem(self, place: Place, message: str) -> Problem:
        """A problem at a place, with its file and line."""
        origin = self.origin(place)
        return Problem(origin.file, origin.line, spelled(place), message)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values: `no` and dates are text, `1e-3` is a number; nothing is ever executed."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_SCALARS = {
    "null": (r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
for _name, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_pattern})$"), _first)


def read_document(path: Path, file: str, folder: Path) -> Document:
    """Reads a YAML file.

    Args:
        path: the file.
        file: how problems call it.
        folder: where relative paths in it start.

    Raises:
        SpecError: the file cannot be read, is not UTF-8, or is not one YAML document of unique plain keys.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SpecError([Problem(file, None, "", f"cannot be read: {error.strerror}")]) from error
    if len(data) > MAX_BYTES:
        raise SpecError([Problem(file, None, "", f"{len(data)} bytes; at most {MAX_BYTES} are read")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"not UTF-8 text: byte 0x{data[error.start]:02x}; save the file as UTF-8"
        raise SpecError([Problem(file, line, "", message)]) from error
    return parse_document(text, file, folder)


def parse_document(text: str, file: str, folder: Path) -> Document:
    """Reads YAML text; as `read_document`, for text at hand."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        raise SpecError([Problem(file, line, "", _syntax(error))]) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"not valid YAML: the control character {chr(error.character)!r}"
        raise SpecError([Problem(file, line, "", message)]) from error
    except RecursionError as error:
        raise SpecError([Problem(file, None, "", "lists or mappings are nested too deeply")]) from error
    document = Document(None, {(): Origin(file, 1, folder)})
    if node is not None:
        reader = _Reader(document, file, folder)
        document.value = reader.value(node, ())
        if reader.problems:
            raise SpecError(reader.problems)
    return document


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads as the same; text over several lines stays so, and nothing becomes an alias."""

    def ignore_aliases(self, data: object) -> bool:
        """Every value is written out."""
        del data
        return True


# What only others take for something else than text: YAML 1.2, and kubectl, whose booleans are YAML 1.1's in full and
# whose whole numbers are Go's.
_Dumper.yaml_implicit_resolvers = {
    first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *_Loader.yaml_implicit_resolvers.get(first, [])]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}
_Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^[yYnN]$"), list("yYnN"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?0[oObBxX][0-9a-fA-F_]+$"), list("-+0"))
_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def write_document(*values: object) -> str:
    """Values as YAML, one document each, in the order of their keys; `parse_document` reads a value back the same."""
    return "---\n".join(
        yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120) for value in values
    )


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "unreadable"
    if "'\\t'" in problem:
        return "a tab stands here; YAML is indented with spaces"
    if "expected a single document" in (error.context or ""):
        return "a second document starts here ('---'); the file holds one alone"
    context = f" ({error.context})" if error.context else ""
    return f"not valid YAML: {problem}{context}"


class _TooLargeError(Exception):
    pass


class _Reader:
    """Turns YAML nodes into values, notes their lines, and collects what a spec may not hold."""

    def __init__(self, document: Document, file: str, folder: Path) -> None:
        self.problems: list[Problem] = []
        self._document = document
        self._file = file
        self._folder = folder
        self._values = 0

    def value(self, node: yaml.Node, place: Place) -> object:
        try:
            return self._value(node, place)
        except _TooLargeError:
            message = (
                f"more than {MAX_VALUES} values or {MAX_DEPTH} levels, with every alias ('*name') followed; "
                "write a smaller file"
            )
            self.problems.append(Problem(self._file, node.start_mark.line + 1, "", message))
            return None

    def _value(self, node: yaml.Node, place: Place) -> object:
        self._values += 1
        if self._values > MAX_VALUES or len(place) > MAX_DEPTH:
            raise _TooLargeError
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(item, (*place, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, place)

    def _item(self, node: yaml.Node, place: Place) -> object:
        self._note(node, place)
        return self._value(node, place)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, object]:
        mapping: dict[str, object] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(key_node, place, "expected a plain key, got a list or a mapping as one")
                continue
            key = key_node.value
            if key in mapping:
                self._complain(key_node, (*place, key), f"this key stands twice, first on line {first[key]}")
            elif key == "<<":
                self._complain(key_node, place, "merging with '<<' is not supported; write the keys out")
            else:
                self._note(key_node, (*place, key))
                first[key] = line
                mapping[key] = self._value(value_node, (*place, key))
        return mapping

    def _scalar(self, node: yaml.Node, place: Place) -> object:
        text = str(node.value)
        tag = str(node.tag).removeprefix("tag:yaml.org,2002:")
        try:
            match tag:
                case "str":
                    return text
                case "null":
                    return None
                case "bool":
                    return text.lower() == "true"
                case "int":
                    return int(text, 16 if text.startswith("0x") else 10)
                case "float":
                    return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
        except ValueError:
            self._complain(node, place, f"not a number: '{text[:40]}'")
            return None
        self._complain(node, place, f"the tag '{node.tag}' is not allowed; write a plain value")
        return None

    def _note(self, node: yaml.Node, place: Place) -> None:
        self._document.origins[place] = Origin(self._file, node.start_mark.line + 1, self._folder)

    def _complain(self, node: yaml.Node, place: Place, message: str) -> None:
        self.problems.append(Problem(self._file, node.start_mark.line + 1, spelled(place), message))

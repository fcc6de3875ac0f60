"""Configuration types in plain words, and pydantic's errors as problems with a place in the spec."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from jobs.problem import Place, hint, spelled
from pipeline.suggestion import did_you_mean

_PLAIN: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    Path: "a path",
}
_UNIONS = (Union, types.UnionType)


def expected(annotation: object, limits: Sequence[object] = ()) -> str:
    """What a field takes, in plain words: `a whole number of at least 1`.

    Args:
        annotation: the field's type.
        limits: its constraints, as pydantic keeps them in a field's `metadata`.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return expected(arguments[0], [*arguments[1:], *limits])
    if origin in _UNIONS:
        if all(_is_model(_bare(argument)) for argument in arguments):
            return "a mapping"
        wanted = [argument for argument in arguments if argument is not type(None)]
        return " or ".join(dict.fromkeys(expected(argument, limits) for argument in wanted))
    if origin is Literal:
        words = ", ".join(str(argument) for argument in arguments)
        return words if len(arguments) == 1 else f"one of {words}"
    if origin in (tuple, list, frozenset, set, Sequence):
        return _expected_list(arguments, limits)
    if origin is dict or annotation is dict or _is_model(annotation):
        return "a mapping"
    if annotation in (int, float):
        return _PLAIN[annotation] + _bounds(limits, whole=annotation is int)
    return _PLAIN.get(annotation, "a value")


def _expected_list(arguments: Sequence[object], limits: Iterable[object]) -> str:
    length = f"{len(arguments)} " if arguments and arguments[-1] is not Ellipsis and len(arguments) > 1 else ""
    least = max((getattr(limit, "min_length", None) or 0 for limit in limits), default=0)
    item = expected(arguments[0]) if arguments else "a value"
    several = "entries"
    for one, many in (("a whole number", "whole numbers"), ("a number", "numbers"), ("text", "texts")):
        if item.startswith(one):
            several = many + item.removeprefix(one)
    if least and not length:
        length = f"{'one' if least == 1 else least} or more "
    return f"a list of {length}{several}"


def _bounds(limits: Iterable[object], *, whole: bool) -> str:
    bounds = {
        name: value
        for limit in limits
        for name in ("ge", "gt", "le", "lt")
        if (value := getattr(limit, name, None)) is not None
    }
    if whole and "gt" in bounds:
        bounds["ge"] = bounds.pop("gt") + 1
    if "ge" in bounds and "le" in bounds:
        return f" from {bounds['ge']} to {bounds['le']}"
    words = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
    parts = [f"{words[name]} {bounds[name]}" for name in ("ge", "gt", "le", "lt") if name in bounds]
    return " " + " and ".join(parts) if parts else ""


def got(value: object) -> str:
    """A value as an error shows it: short, in YAML's words."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case dict():
            return "a mapping"
        case list():
            return f"a list of {len(value)}" if value else "an empty list"
        case str():
            return f"'{value}'" if len(value) <= 60 else f"'{value[:57]}…'"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _is_model(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _bare(annotation: object) -> object:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def models_in(annotation: object) -> list[type[BaseModel]]:
    """The configuration classes that a field may hold, lists aside."""
    if get_origin(annotation) is Annotated or get_origin(annotation) in _UNIONS:
        found = [model for argument in get_args(annotation) for model in models_in(argument)]
        return list(dict.fromkeys(found))
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


def tag_field(model: type[BaseModel]) -> str | None:
    """The field whose one value names this class among its kind, such as a method's `name`; None: none."""
    for key in ("name", "source"):
        field = model.model_fields.get(key)
        if field is not None and get_origin(field.annotation) is Literal:
            return key
    return None


def _chosen(models: list[type[BaseModel]], value: object) -> list[type[BaseModel]]:
    """Those of `models` that the value's tag names; all of them where it names none."""
    if not isinstance(value, dict):
        return models
    named = [
        model
        for model in models
        if (key := tag_field(model)) and value.get(key) in get_args(model.model_fields[key].annotation)
    ]
    return named or models


class Translator:
    """Puts pydantic's errors about one value into plain words.

    Attributes:
        root: the class that was validated.
        value: what it was given: mappings, lists and plain values.
        nouns: what the named things under a top-level key are called (`methods` holds a `method`).
        extra_keys: keys that people may write at a place beside the class's own fields.
    """

    def __init__(
        self,
        root: type[BaseModel],
        value: object,
        *,
        nouns: Mapping[str, str],
        extra_keys: Callable[[Place], Sequence[str]],
    ) -> None:
        self.root = root
        self.value = value
        self.nouns = nouns
        self.extra_keys = extra_keys

    def translate(self, error: ErrorDetails) -> tuple[Place, str]:
        """The place that an error is about, without pydantic's own steps, and the message."""
        place, annotation, limits, value = self._walk(error)
        match error["type"]:
            case "extra_forbidden":
                return place, self._unknown_key(place)
            case "missing" if isinstance(error["loc"][-1], str):
                return place, f"missing; expected {expected(annotation, limits)}"
            case "union_tag_not_found" | "union_tag_invalid":
                return self._wrong_tag(place, annotation, value)
            case "value_error":
                return self._named_field(place, annotation, str(error["ctx"]["error"]))
        wanted = expected(annotation, limits)
        return place, f"expected {wanted}, got {got(value)}{_mend(annotation, wanted, value)}"

    def _walk(self, error: ErrorDetails) -> tuple[Place, object, Sequence[object], object]:
        """Follows an error's location through value and types; steps that the value lacks are union tags."""
        place: Place = ()
        value: object = self.value
        annotation: object = self.root
        limits: Sequence[object] = ()
        last = len(error["loc"]) - 1
        for position, step in enumerate(error["loc"]):
            absent = error["type"] == "missing" and position == last and isinstance(step, str)
            if isinstance(value, dict) and (step in value or absent):
                annotation, limits = _inside(annotation, value, step)
                value = value.get(step)
            elif isinstance(value, list) and isinstance(step, int) and step < len(value):
                annotation, limits = _inside(annotation, value, step)
                value = value[step]
            else:
                continue
            place = (*place, step)
        return place, annotation, limits, value

    def _named_field(self, place: Place, annotation: object, message: str) -> tuple[Place, str]:
        """A check over a whole mapping begins its message with the key at fault."""
        word = message.partition(" ")[0]
        fields = [name for model in models_in(annotation) for name in model.model_fields]
        return ((*place, word) if word in fields else place), message

    def _wrong_tag(self, place: Place, annotation: object, value: object) -> tuple[Place, str]:
        models = models_in(annotation)
        key = tag_field(models[0]) or "name"
        known = [str(tag) for model in models for tag in get_args(model.model_fields[key].annotation)]
        noun = self.nouns.get(str(place[0]), key)
        if not isinstance(value, dict) or key not in value:
            return (*place, key), f"missing; expected one of {', '.join(known)}"
        name = value[key]
        if isinstance(name, str):
            return (*place, key), f"unknown {noun} '{name}'{hint(name, known)}"
        return (*place, key), f"expected one of {', '.join(known)}, got {got(name)}"

    def _unknown_key(self, place: Place) -> str:
        parent: Any = self.value
        annotation: object = self.root
        for step in place[:-1]:
            annotation, _ = _inside(annotation, parent, step)
            parent = parent[step]
        models = _chosen(models_in(annotation), parent)
        keys = list(dict.fromkeys(key for model in models for key in model.model_fields))
        keys += [key for key in self.extra_keys(place[:-1]) if key not in keys]
        tag = tag_field(models[0]) if len(models) == 1 else None
        owner = parent.get(tag) if tag else spelled(place[-2:-1]) if len(place) > 1 else ""
        owned = f" for {owner}" if isinstance(owner, str) and owner and not owner.startswith("[") else ""
        return f"unknown key{owned}{hint(str(place[-1]), keys)}"


def _mend(annotation: object, wanted: str, value: object) -> str:
    if isinstance(value, str) and (near := did_you_mean(value, _choices(annotation))):
        return near
    if isinstance(value, str) and "number" in wanted and re.fullmatch(r"[-+]?[0-9.]+(e[-+]?\d+)?", value):
        return "; take the quotes off"
    if isinstance(value, bool | int | float) and wanted == "text":
        return "; put it in quotes"
    return ""


def _inside(annotation: object, value: object, step: str | int) -> tuple[object, Sequence[object]]:
    """Type and constraints of a mapping's key or a list's entry."""
    if isinstance(step, int):
        return _item(annotation, step), ()
    for model in _chosen(models_in(annotation), value):
        if step in model.model_fields:
            field = model.model_fields[step]
            return field.annotation, field.metadata
    arguments = get_args(_bare(annotation))
    return (arguments[1], ()) if get_origin(_bare(annotation)) is dict and len(arguments) == 2 else (object, ())


def _item(annotation: object, index: int) -> object:
    """The type of a list's entry."""
    annotation = _bare(annotation)
    if get_origin(annotation) in _UNIONS:
        lists = [a for a in get_args(annotation) if get_origin(_bare(a)) in (tuple, list, frozenset, set)]
        return _item(lists[0], index) if lists else object
    arguments = [argument for argument in get_args(annotation) if argument is not Ellipsis]
    return arguments[min(index, len(arguments) - 1)] if arguments else object


def _choices(annotation: object) -> list[str]:
    """The words that a field takes."""
    annotation = _bare(annotation)
    if get_origin(annotation) is Literal:
        return [argument for argument in get_args(annotation) if isinstance(argument, str)]
    if get_origin(annotation) in _UNIONS:
        return [word for argument in get_args(annotation) for word in _choices(argument)]
    return []

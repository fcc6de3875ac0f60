"""The templates of the pages and their style sheet, as they stand beside this file."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from pipeline.plain_text import plain_text
from pipeline.report.cost import duration


@cache
def template(name: str) -> Any:
    """A Jinja template; what it is given is made plain and escaped, and what it lacks is an error."""
    environment = Environment(
        loader=FunctionLoader(_resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_plain,
    )
    environment.filters["duration"] = duration
    environment.filters["breakable"] = _breakable
    return environment.get_template(name)


def style_sheet() -> Markup:
    """The style sheet of every page."""
    return Markup(_resource("page.css"))


def _breakable(name: str) -> Markup:
    """A name that may be broken after its underscores."""
    return Markup("_<wbr>").join(plain_text(name).split("_"))


def _plain(value: object) -> object:
    """Text from data without what would turn its direction, or cannot be encoded; markup of our own as it is."""
    return plain_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _resource(name: str) -> str:
    return resources.files("pipeline.report").joinpath(name).read_text(encoding="utf-8")

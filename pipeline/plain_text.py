"""Names that somebody else chose, as text that is shown and not obeyed.

Ids, class names and file names come from data sets. In a terminal a control character moves the cursor or begins a
line; on a page or in a terminal, one that turns the direction of writing shows a name as another. XML and UTF-8 cannot
hold some of them at all.
"""

from __future__ import annotations

import re

_CONTROL = r"\x00-\x08\x0b-\x1f\x7f-\x9f"
_DIRECTION = r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_NO_CHARACTER = r"\ufeff\ufffe\uffff\ud800-\udfff"
_UNSAFE = re.compile(f"[{_CONTROL}{_DIRECTION}{_NO_CHARACTER}]")
_UNSAFE_IN_A_LINE = re.compile(rf"[\t\n\r\u2028\u2029{_CONTROL}{_DIRECTION}{_NO_CHARACTER}]")


def plain_line(text: str) -> str:
    r"""A text in one line: what a terminal would obey, and ends of lines, are spelled out (`\x1b`, `\n`, `\u202e`)."""
    return _UNSAFE_IN_A_LINE.sub(_spelled_out, text)


def plain_text(text: str) -> str:
    """The same of a text of several lines: tabs and ends of lines stay."""
    return _UNSAFE.sub(_spelled_out, text)


def _spelled_out(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")

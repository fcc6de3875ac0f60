"""The end of an error message: what the name was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice

# Comparing one name with a million ids would take minutes.
_MOST_COMPARED = 20_000


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest candidate, or nothing where none is near."""
    near = difflib.get_close_matches(name, list(islice(candidates, _MOST_COMPARED)), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""

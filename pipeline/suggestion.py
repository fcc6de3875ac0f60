"""The end of an error message: what the name was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice

# Comparing one name with a million ids would take minutes.
_MOST_COMPARED = 20_000


def did_you_mean(name: str, candidates: Iterable[str], *, most: int = 1) -> str:
    """What a message about an unknown name ends in, upper and lower case being the same.

    Args:
        name: as written.
        candidates: names there are; of very many only the first are compared.
        most: how many names are offered.

    Returns:
        `; did you mean 'x' or 'y'?`, the nearest first, or nothing where none is near.
    """
    known = {candidate.lower(): candidate for candidate in islice(candidates, _MOST_COMPARED)}
    near = difflib.get_close_matches(name.lower(), known, n=most)
    return f"; did you mean {' or '.join(repr(known[one]) for one in near)}?" if near else ""

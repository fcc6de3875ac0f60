"""One colour and one dash a method, the same everywhere on the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Apart for the three common colour deficiencies (after Okabe and Ito 2008, and Tol's muted scheme), each with
# a contrast of 3 : 1 or more to the page. The first of a pair is for light pages, the second for dark ones.
_COLOURS = (
    ("#0072b2", "#5ab4ee"),
    ("#c24e00", "#f08a4b"),
    ("#00805f", "#3ccb9e"),
    ("#aa4499", "#e08ad0"),
    ("#967000", "#e6c34a"),
    ("#2a8fbd", "#8ad8f5"),
    ("#882255", "#e0709e"),
    ("#4a5568", "#b5bdc8"),
)
_CONTROL = ("#6b7280", "#9aa3af")
# Lengths of strokes and gaps in points; the empty one is a solid line.
_DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2), (6, 2, 1.5, 2), (3, 1.5), (9, 2, 3, 2))
_CONTROL_DASH = (1.5, 2.0)


@dataclass(frozen=True, slots=True)
class Series:
    """How a method is drawn.

    Attributes:
        method: its id.
        light, dark: colour on a light and on a dark page, `#rrggbb`.
        dash: strokes and gaps in points; empty for a solid line.
        name: of the colour's CSS variable, without the leading `--`.
    """

    method: str
    light: str
    dark: str
    dash: tuple[float, ...]
    name: str

    @property
    def stroke(self) -> str:
        """The dash as SVG's `stroke-dasharray`."""
        return " ".join(f"{length:g}" for length in self.dash) or "none"


def palette(methods: Sequence[str], control: str | None) -> dict[str, Series]:
    """A colour and dash for each method, by its place in the spec; the random control is grey and dotted."""
    found: dict[str, Series] = {}
    number = 0
    for method in methods:
        if method == control:
            found[method] = Series(method, *_CONTROL, _CONTROL_DASH, "series-control")
            continue
        # Past the last colour, colours come again with another dash.
        dash = _DASHES[(number + number // len(_COLOURS)) % len(_DASHES)]
        found[method] = Series(method, *_COLOURS[number % len(_COLOURS)], dash, f"series-{number % len(_COLOURS)}")
        number += 1
    return found

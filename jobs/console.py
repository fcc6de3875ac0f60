"""Where tables are printed, and how names that somebody else chose are put there."""

from __future__ import annotations

from rich.console import Console

from pipeline.plain_text import plain_line as plain

__all__ = ["plain", "wide_console"]

PIPED_WIDTH = 160


def wide_console() -> Console:
    """Standard output; in a pipe, which has no width of its own, wide enough for our tables."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPED_WIDTH)


def counted(count: int, what: str) -> str:
    """A number of things: `1 sample`, `2,000 samples`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"

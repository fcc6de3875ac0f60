"""Where tables are printed."""

from __future__ import annotations

from rich.console import Console

PIPED_WIDTH = 160


def wide_console() -> Console:
    """Standard output; in a pipe, which has no width of its own, wide enough for our tables."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPED_WIDTH)

"""A user's mistake, as one line: where it stands, what was got, what was expected, and the mend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.credential import without_credentials
from pipeline.errors import FatalError
from pipeline.suggestion import did_you_mean

Place = tuple[str | int, ...]
"""The way to a value in a spec, such as ("methods", 1, "steps")."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a spec.

    Attributes:
        file: the spec as the user named it, or the `--set` option that brought the value.
        line: line in the file, from 1; None where there is none (an option, a missing file).
        place: the key, such as `methods[1].steps`; empty for the spec as a whole.
        message: what was got, what was expected, and the mend.
    """

    file: str
    line: int | None
    place: str
    message: str

    def __post_init__(self) -> None:
        """Wherever a problem is shown, it shows no credentials."""
        for name in ("file", "message"):
            object.__setattr__(self, name, without_credentials(getattr(self, name)))

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return " ".join(": ".join(part for part in (where, self.place, self.message) if part).split())


class SpecError(FatalError):
    """A spec that cannot be run, with every problem that was found in it.

    Attributes:
        problems: at least one, in the order of the file.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def spelled(place: Place) -> str:
    """A place as people write it: `methods[1].steps`."""
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def hint(word: str, candidates: Sequence[str]) -> str:
    """The end of an error about an unknown name: `; did you mean 'agi'?`, else the names there are."""
    return did_you_mean(word, candidates) or (f"; known: {', '.join(candidates)}" if candidates else "")

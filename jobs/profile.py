"""Profiles by name or file."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import ValidationError

import cluster
from cluster.profile import Profile
from jobs.document import read_document
from jobs.expectation import Translator, got
from jobs.problem import Problem, SpecError, hint

PROFILES = Path(cluster.__file__).parent / "profiles"


def default_profile() -> str:
    """`node` where a GPU is seen, `laptop` elsewhere."""
    return "node" if torch.cuda.is_available() else "laptop"


def load_profile(name: str | None) -> Profile:
    """A profile of `cluster/profiles` by name, or a YAML file of the user's own.

    Args:
        name: default: `default_profile()`.

    Raises:
        SpecError: no such profile, or one that is not valid.
    """
    name = name or default_profile()
    known = {file.stem: file for file in sorted(PROFILES.glob("*.yaml"))}
    file = known.get(name, Path(name))
    if not file.is_file():
        raise SpecError([Problem("--profile", None, "", f"no profile or file '{name}'{hint(name, list(known))}")])
    document = read_document(file, name, file.parent)
    value = {} if document.value is None else document.value
    if not isinstance(value, dict):
        message = f"expected keys such as executor and workers, got {got(value)}"
        raise SpecError([document.problem((), message)])
    try:
        # Strict, as in a spec, so that '2' is no number and true is not 1.
        return Profile.model_validate(value, strict=True)
    except ValidationError as error:
        translator = Translator(Profile, value, nouns={}, extra_keys=lambda place: ())
        found = [translator.translate(details) for details in error.errors(include_url=False)]
        problems = [document.problem(place, message) for place, message in found]
        raise SpecError(sorted(problems, key=lambda problem: problem.line or 0)) from error

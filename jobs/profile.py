"""Profiles by name or file."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from pydantic import ValidationError

import cluster
from cluster.profile import Profile
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
    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
        return Profile.model_validate(loaded if loaded is not None else {})
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError([Problem(name, None, "", f"is not YAML: {' '.join(str(error).split())}")]) from error
    except ValidationError as error:
        keys = list(Profile.model_fields)
        problems = [
            Problem(
                name,
                None,
                ".".join(str(step) for step in one["loc"]),
                f"unknown key{hint(str(one['loc'][-1]), keys)}" if one["type"] == "extra_forbidden" else one["msg"],
            )
            for one in error.errors()
        ]
        raise SpecError(problems) from error

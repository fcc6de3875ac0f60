"""`heatline validate`: every problem of a spec, and nothing run."""

from __future__ import annotations

import dataclasses
import json

import click

from jobs.check import CheckedJob, check
from jobs.problem import Problem, SpecError
from jobs.spec import load_spec
from pipeline.data import build_index


@click.command()
@click.argument("specs", nargs=-1, required=True, metavar="SPEC…")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key: methods.1.steps=20.")
@click.option("--json", "as_json", is_flag=True, help="Print a list with one object a spec.")
def validate(specs: tuple[str, ...], overrides: tuple[str, ...], as_json: bool) -> int:
    """Tell every problem of each SPEC, with its line; exit code 2 if there is any.

    Data sets and weights are opened, and each model sees three images; nothing else is run or written.
    """
    results = [_validate(spec, overrides) for spec in specs]
    if as_json:
        click.echo(json.dumps([result for result, _, _ in results], indent=2))
    for _, line, problems in [] if as_json else results:
        if line:
            click.echo(line)
        for problem in problems:
            click.echo(str(problem), err=True)
    return 2 if any(problems for _, _, problems in results) else 0


def _validate(file: str, overrides: tuple[str, ...]) -> tuple[dict[str, object], str | None, tuple[Problem, ...]]:
    """The result for JSON, the line for people where all is well, and the problems."""
    try:
        job = check(load_spec(file, overrides), build_index)
    except SpecError as error:
        listed = [dataclasses.asdict(problem) for problem in error.problems]
        return {"file": file, "fine": False, "problems": listed}, None, error.problems
    counts = _counts(job)
    words = ", ".join(f"{count:,} {name if count != 1 else name[:-1]}" for name, count in counts.items())
    return {"file": file, "fine": True, "problems": [], **counts}, f"{file}: fine — {words}", ()


def _counts(job: CheckedJob) -> dict[str, int]:
    spec = job.spec
    return {
        "samples": len(job.dataset),
        "models": len(spec.models),
        "methods": len(spec.methods),
        "metrics": len(spec.metrics),
    }

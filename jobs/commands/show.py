"""`heatline show`: one sample's maps of all methods as a picture, and its scores."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from PIL import Image

from jobs.console import plain
from pipeline.contracts import digest
from pipeline.data import Dataset
from pipeline.data.folder import EXTENSIONS
from pipeline.errors import FatalError
from pipeline.report import SampleModel, SampleView, run_dataset, sample_picture, view_sample
from pipeline.stages.variant import folder_name
from pipeline.store import open_output

LISTED = 20
"""Ids listed where no sample is named."""

_LONGEST_NAME = 120
_FORMATS = (".png", ".jpg", ".jpeg", ".webp")


@click.command()
@click.argument("output")
@click.option("--sample", metavar="ID", help="id of the sample; without it, the first ids are listed")
@click.option("--model", metavar="ID", help="only this model; default: all of the run")
@click.option("--run", "name", metavar="NAME", help="name of a run; default: the latest")
@click.option("--save", metavar="FILE", type=click.Path(path_type=Path), help="the picture; default: <id>.png here")
@click.option("--signed", is_flag=True, help="blue against, red in favour, in place of dark to bright")
@click.option("--json", "as_json", is_flag=True, help="print the picture's place and the scores as JSON")
def show(
    output: str,
    sample: str | None,
    model: str | None,
    name: str | None,
    save: Path | None,
    signed: bool,
    as_json: bool,
) -> None:
    """Draw one sample's maps of all methods, and print its scores; or list the first samples of OUTPUT."""
    opened = open_output(output)
    dataset = run_dataset(opened, opened.run(name))
    if sample is None:
        _list(dataset, as_json)
        return
    place = save or Path(f"{_file_name(sample)}.png")
    if place.suffix.lower() not in _FORMATS:
        raise FatalError(f"--save {place}: the name should end in one of {', '.join(_FORMATS)}")
    view = view_sample(opened, name, dataset=dataset, sample=sample, model=model)
    _write(sample_picture(view, signed=signed), place)
    if as_json:
        click.echo(json.dumps(_as_json(view, place), indent=2))
        return
    click.echo(str(place))
    _print_scores(view)


def _file_name(sample: str) -> str:
    """An id as a file's name, without an image's ending; a long one is cut, and told apart by its hash."""
    name = folder_name(sample)
    stem, dot, ending = name.rpartition(".")
    name = stem if f"{dot}{ending}".lower() in EXTENSIONS and stem else name
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}-{digest(sample)}"


def _list(dataset: Dataset, as_json: bool) -> None:
    ids = dataset.ids(0, LISTED)
    if as_json:
        click.echo(json.dumps({"samples": len(dataset), "ids": ids}, indent=2))
        return
    for identifier in ids:
        click.echo(plain(identifier))
    rest = len(dataset) - len(ids)
    click.echo((f"and {rest:,} more; " if rest else "") + "show one with --sample ID", err=True)


def _write(picture: Image.Image, place: Path) -> None:
    try:
        picture.save(place)
    except OSError as error:
        raise FatalError(f"{place}: cannot be written: {error.strerror or error}") from error


def _as_json(view: SampleView, place: Path) -> dict[str, object]:
    return {
        "picture": str(place),
        "id": view.id,
        "label": view.label,
        "models": [
            {
                "model": one.model,
                "predicted": one.predicted,
                "probability": one.probability,
                "correct": one.correct,
                "methods": list(one.maps),
                "scores": [asdict(score) for score in one.scores],
            }
            for one in view.models
        ],
    }


def _print_scores(view: SampleView) -> None:
    """A line a method, a column a measure, aligned for reading and for `grep`."""
    for model in view.models:
        click.echo(plain(_title(view, model)))
        measures = list(dict.fromkeys((score.metric, score.measure) for score in model.scores))
        values = {(score.method, score.metric, score.measure): score.value for score in model.scores}
        heads = [metric if metric == measure else f"{metric} {measure}" for metric, measure in measures]
        width = max(len(method) for method in ("method", *model.maps))
        click.echo("  " + "  ".join(["method".ljust(width), *(head.rjust(9) for head in heads)]))
        for method in model.maps:
            row = (values.get((method, *measure)) for measure in measures)
            cells = ["–" if value is None else f"{value:.4f}" for value in row]
            aligned = (cell.rjust(max(9, len(head))) for cell, head in zip(cells, heads, strict=True))
            click.echo("  " + "  ".join([method.ljust(width), *aligned]))


def _title(view: SampleView, model: SampleModel) -> str:
    label = "" if view.label is None else f", label {view.label}"
    if model.predicted is None:
        return f"{model.model}: no prediction{label}"
    return f"{model.model}: predicts {model.predicted} ({model.probability:.3f}){label}"

"""`heatline schema`: what an editor needs to complete and check specs."""

from __future__ import annotations

import json

import click

from jobs.schema import spec_schema


@click.command()
def schema() -> None:
    """Print the JSON Schema of a spec.

    Write it to a file and name that file in the first line of a spec, so that editors complete and check it:
    `# yaml-language-server: $schema=heatline.schema.json`.
    """
    click.echo(json.dumps(spec_schema(), indent=2, ensure_ascii=False))

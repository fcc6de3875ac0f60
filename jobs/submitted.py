"""The other side of `heatline submit`: runs on the cluster, in the folder with the job's files."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from cluster.code import code_digest, code_place
from cluster.parcel import FACTS_FILE
from jobs.cli import MISTAKE, main
from jobs.notify import VARIABLE
from jobs.record import SUBMISSION_VARIABLE
from jobs.submit import COMMAND_FACT, OUTPUT_FACT, WEBHOOK_FILE
from pipeline.errors import FatalError
from pipeline.store import open_output


def run_submitted(arguments: list[str]) -> int:
    """Run a job that was submitted, with the code that it was submitted with.

    Args:
        arguments: the words after `heatline`.

    Returns:
        The exit code, as of the command.
    """
    facts = json.loads(Path(FACTS_FILE).read_text(encoding="utf-8"))
    if code_digest() != facts["code"]:
        click.echo(
            f"this is not the program that was submitted: {code_place()} here, {facts['place']} there; submit again, "
            "with the same files throughout",
            err=True,
        )
        return MISTAKE
    made = facts[OUTPUT_FACT]
    if made is not None and not _is_seen(made):
        click.echo(
            f"output '{made}' is a folder of the machine that submitted the job, and {os.uname().nodename} does not "
            "see it; take an object store (--set output=s3://bucket/prefix), a folder that both share, or one that "
            "only the cluster has (--on-cluster FOLDER)",
            err=True,
        )
        return MISTAKE
    webhook = Path(WEBHOOK_FILE)
    if webhook.exists():
        # From a file, since Ray shows a job's command and variables to whoever may look at its dashboard.
        os.environ[VARIABLE] = webhook.read_text(encoding="utf-8")
    os.environ[SUBMISSION_VARIABLE] = facts["id"]
    # The command that a stopped run is to be repeated with is the one that somebody gave.
    sys.argv = ["heatline", *facts[COMMAND_FACT]]
    return main(arguments)


def _is_seen(output: str) -> bool:
    try:
        open_output(output)
    except FatalError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(run_submitted(sys.argv[1:]))

"""What a job loses when something of it dies: kills at random moments, and one of each other fault.

Run: `PYTHONPATH=tests python tests/benchmarks/faults.py --kills 100 --seed 0`, on Linux; the full disk takes root. A
job of small units runs on a Ray cluster of two nodes that the script starts (ports and a folder of its own, a CPU and
an actor each), as a submitted job there, or in one process. SIGKILL strikes the driver, an actor, the second node's
raylet (another node joins) or the submitted job's supervisor at a random number of committed units or in the start, and
the same command is given again until the job is done; then another job begins. Predictions, maps and scores of each are
held against those of an undisturbed job. The exit code is 1 where something was lost, doubled, changed or done twice.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np
from fault_cluster import SmallCluster
from fault_finding import Found, table
from fault_kills import NAMES, KilledJob
from fault_laboratory import UNDISTURBED, Form, Laboratory
from fault_output import markers
from fault_single import single_faults

FORMS: dict[Form, float] = {"cluster": 0.4, "submitted": 0.4, "alone": 0.2}
"""Share of the kills that each form of a job is to get."""


def kill_at_random(laboratory: Laboratory, kills: int, seed: int, seconds: float) -> list[Found]:
    """Kill jobs until there were so many kills, or the time is over."""
    draws, began, made, jobs = np.random.default_rng(seed), time.monotonic(), 0, 0
    found: dict[str, Found] = {}
    kills_of = dict.fromkeys(FORMS, 0)
    while made < kills and time.monotonic() - began < seconds:
        form = max(FORMS, key=lambda one: FORMS[one] * made - kills_of[one])
        job = KilledJob(laboratory, f"job-{jobs}", form, draws)
        whole = Found("")
        with whole.once():
            job.run(kills - made)
            whole.differences.append(laboratory.compare(f"job-{jobs}"))
        jobs, made = jobs + 1, made + len(job.kills)
        kills_of[form] += len(job.kills)
        for name in {NAMES[form, kill.kind] for kill in job.kills}:
            one = found.setdefault(name, Found(name, again=0))
            struck = [kill for kill in job.kills if NAMES[form, kill.kind] == name]
            one.times += len(struck)
            one.in_flight += [len(kill.lost) for kill in struck]
            one.seconds += [kill.seconds for kill in struck if kill.seconds is not None]
            one.again = (one.again or 0) + len(job.again)
            one.differences += whole.differences
            one.trouble += whole.trouble
        what = ", ".join(f"{kill.kind} −{len(kill.lost)}" for kill in job.kills)
        told = "fine" if whole.fine and not job.again else f"{whole.facts()} {job.again}"
        click.echo(f"{time.monotonic() - began:.0f} s: job {jobs}, {form}, {made} kills: {what}: {told}", err=True)
    return sorted(found.values(), key=lambda one: list(NAMES.values()).index(one.fault))


@click.command()
@click.option("--kills", default=100, help="Random kills in all.")
@click.option("--seed", default=0, help="Of the moments.")
@click.option("--seconds", default=3600.0, help="Time after which no further job is killed.")
@click.option("--single/--no-single", default=True, help="One of each other fault as well.")
@click.option("--stopped", default=60.0, help="Seconds that a worker is stopped for.")
@click.option("--samples", default=96, help="Images of a job.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where outputs stay; default: nowhere.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the table there.")
@click.option("--json", "as_json", type=click.Path(path_type=Path), help="Write what was found there.")
def main(
    kills: int, seed: int, seconds: float, single: bool, stopped: float, samples: int, folder: Path | None,
    markdown: Path | None, as_json: Path | None,
) -> None:  # fmt: skip
    """Disturb jobs, and print what was lost."""
    with ExitStack() as stack:
        folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        os.environ |= {"RAY_AUTH_MODE": "token", "HEATLINE_LOG": str(folder / "runs.log")}
        # Ray keeps sockets in its folder, whose paths must be short.
        ray = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="f", dir="/tmp", ignore_cleanup_errors=True)))
        laboratory = Laboratory(folder, stack.enter_context(SmallCluster(ray)), samples)
        took = laboratory.run_undisturbed(laboratory.spec(UNDISTURBED))
        units = len(markers(laboratory.output(UNDISTURBED)))
        click.echo(f"{os.cpu_count()} cores; undisturbed: {units} units of {samples} images, {took:.1f} s", err=True)
        found = kill_at_random(laboratory, kills, seed, seconds)
        if single:
            found += single_faults(laboratory, stopped)
    text = table(found)
    click.echo(text)
    if markdown:
        markdown.write_text(text + "\n")
    if as_json:
        as_json.write_text(json.dumps([one.facts() for one in found], indent=1))
    raise SystemExit(not all(one.fine for one in found))


if __name__ == "__main__":
    main()

"""`heatline schedule`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import click
from click.core import ParameterSource
from pydantic import ValidationError

from cluster.kuberay import Deployment
from jobs.cron import read_cron
from jobs.expectation import Translator
from jobs.manifest import TIMED, Kind
from jobs.option import DEADLINE, SELECTOR, START_DEADLINE, TOLERATION, VOLUME, WORKERS, environment
from jobs.problem import Place, Problem, SpecError
from jobs.schedule import (
    Rerun,
    check_zone,
    cron_text,
    install_cron,
    install_systemd,
    installed_ray,
    kubernetes_text,
    systemd_texts,
)
from pipeline.errors import FatalError

Target = Literal["kuberay", "kubernetes", "cron", "systemd"]

# Options that mean nothing elsewhere, by the targets that know them.
_KUBERAY = ("kind", "workers", "head_cpus", "head_memory", "kubectl_image", "start_deadline")
_PODS = (
    *("image", "ray_version", "namespace", "cpus", "memory", "gpus", "volumes", "in_image", "secret"),
    *("service_account", "tolerations", "node_selector", "suspend", "retries", "keep_seconds", "deadline"),
    "image_pull_secret",
)
# Of a run, and a Ray cluster that stays is none.
_RUNS = ("retries", "keep_seconds", "deadline", "start_deadline")


@click.command()
@click.argument("spec")
@click.option(
    "--target",
    type=click.Choice(["kuberay", "kubernetes", "cron", "systemd"]),
    help="what starts it; cron skips times at which the machine is off, systemd makes up for them",
)
@click.option(
    "--cron", "line", metavar="LINE", help="when: minute, hour, day, month, weekday; '0 3 * * 1' is Monday 3:00"
)
@click.option("--time-zone", "zone", metavar="NAME", help="of the line, such as Europe/Berlin [that of the target]")
@click.option("--profile", help="a profile's name or file, as for run [one that fits the target]")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="change a key of the spec")
@click.option("--name", help="of what is made [heatline- and the spec's name]")
@click.option("--write", "folder", type=click.Path(path_type=Path), help="write files into this folder")
@click.option("--install", is_flag=True, help="cron, systemd: put it in place; repeating it changes nothing")
@click.option(
    "--kind",
    type=click.Choice(["raycronjob", "cronjob", "rayjob", "raycluster"]),
    default="raycronjob",
    help="kuberay: cronjob for KubeRay without RayCronJob; rayjob once, now; raycluster to submit to [raycronjob]",
)
@click.option("--image", help="container image with heatline; see cluster/Dockerfile")
@click.option("--ray-version", default=installed_ray, help="Ray in the image [that of this installation]")
@click.option("--namespace", default="default", help="of every object [default]")
@click.option(
    "--workers",
    callback=WORKERS,
    metavar="N|MIN-MAX",
    default="1",
    help="pods that compute; MIN-MAX follows demand [1]",
)
@click.option("--cpus", type=int, default=4, help="CPU cores a pod [4]")
@click.option("--memory", default="16Gi", help="memory a pod [16Gi]")
@click.option("--gpus", type=int, default=0, help="NVIDIA GPUs a pod [0]")
@click.option("--head-cpus", type=int, default=2, help="CPU cores of Ray's head, which only plans [2]")
@click.option("--head-memory", default="8Gi", help="memory of Ray's head [8Gi]")
@click.option(
    "--volume",
    "volumes",
    callback=VOLUME,
    multiple=True,
    metavar="CLAIM:FOLDER[:ro]",
    help="mount a PersistentVolumeClaim",
)
@click.option("--in-image", multiple=True, metavar="FOLDER", help="a folder of the image that the spec reads")
@click.option("--secret", help="a Secret whose keys become environment variables: credentials of an object store")
@click.option(
    "--env",
    callback=environment,
    multiple=True,
    metavar="NAME=VALUE",
    help="a variable of the run, such as AWS_REGION=eu-west-1 or HEATLINE_LOG=-; for credentials --secret",
)
@click.option("--image-pull-secret", help="a Secret with the credentials of the image's registry")
@click.option("--service-account", help="ServiceAccount of the pods; with workload identity no Secret is needed")
@click.option(
    "--toleration",
    "tolerations",
    callback=TOLERATION,
    multiple=True,
    metavar="KEY[=VALUE][:EFFECT]",
    help="of the pods that compute",
)
@click.option("--node-selector", callback=SELECTOR, multiple=True, metavar="KEY=VALUE", help="of the pods that compute")
@click.option("--suspend", is_flag=True, help="put it there, and start nothing")
@click.option("--retries", type=int, help="backoffLimit [kuberay 0, kubernetes 3]")
@click.option(
    "--deadline",
    callback=DEADLINE,
    metavar="DURATION",
    help="end a run that is not done after so many hours, or 90m, 12h, 2d [none]",
)
@click.option(
    "--start-deadline",
    callback=START_DEADLINE,
    metavar="DURATION",
    default="6h",
    help="kuberay: end a run whose pods are not all running by then; none for KubeRay before 1.6 [6h]",
)
@click.option(
    "--keep-seconds",
    type=int,
    help="after a run its Ray cluster stays so long, and is billed [60]; kubernetes: its pod and log [3 newer runs]",
)
@click.option("--kubectl-image", help="with --kind cronjob: an image whose entry point is kubectl")
def schedule(
    spec: str,
    target: Target | None,
    line: str | None,
    zone: str | None,
    profile: str | None,
    overrides: tuple[str, ...],
    name: str | None,
    folder: Path | None,
    install: bool,
    **pods: Any,
) -> None:
    """Write what runs SPEC again and again: a manifest, a crontab line or a systemd timer.

    Nothing is computed twice by a rerun, and reruns that overlap are safe. By default the text goes to the standard
    output: heatline schedule … --target kuberay | kubectl apply -f -
    """
    ctx = click.get_current_context()
    if target is None:
        raise click.UsageError("Missing option '--target': kuberay, kubernetes, cron or systemd", ctx)
    kind: Kind = "pod" if target == "kubernetes" else pods["kind"]
    _refuse_foreign_options(ctx, target, kind)
    timed = target in ("cron", "systemd") or kind in TIMED
    if timed and line is None:
        raise click.UsageError("Missing option '--cron', such as --cron '0 3 * * 1'", ctx)
    if not timed and (line is not None or zone is not None):
        raise click.UsageError(f"--kind {kind} knows no time; leave --cron and --time-zone out", ctx)
    if install and (folder is not None or target not in ("cron", "systemd")):
        mend = "write it with --write or the other way round" if folder else "take: | kubectl apply -f -"
        raise click.UsageError(f"--install does not go with this; {mend}", ctx)
    check_zone(zone)
    cron = None if line is None else read_cron(line)
    rerun = Rerun(spec, overrides, profile, name, cron, zone, pods["env"])
    if install:
        click.echo(install_cron(rerun) if target == "cron" else install_systemd(rerun))
        return
    _put(_texts(rerun, target, kind, pods, ctx), folder)


def _texts(rerun: Rerun, target: Target, kind: Kind, pods: Mapping[str, Any], ctx: click.Context) -> dict[str, str]:
    """What is to be written, by file name."""
    if target == "systemd":
        return systemd_texts(rerun)
    if target == "cron":
        return {f"{rerun.object_name()}.crontab": cron_text(rerun) + "\n"}
    if not pods["image"]:
        raise click.UsageError("Missing option '--image'; cluster/Dockerfile builds one", ctx)
    text = kubernetes_text(
        rerun, kind, _deployment(target, pods), in_image=pods["in_image"], kubectl_image=pods["kubectl_image"]
    )
    return {f"{rerun.object_name()}.yaml": text}


def _deployment(target: Target, pods: Mapping[str, Any]) -> Deployment:
    least, most = pods["workers"]
    retries = pods["retries"]
    same = (
        *("image", "ray_version", "namespace", "volumes", "secret", "image_pull_secret", "service_account"),
        *("tolerations", "suspend", "keep_seconds"),
    )
    given = {
        "head": {"cpus": pods["head_cpus"], "memory": pods["head_memory"]},
        "worker": {key: pods[key] for key in ("cpus", "memory", "gpus")},
        "min_workers": least,
        "max_workers": most,
        "node_selector": dict(pods["node_selector"]),
        "deadline_seconds": pods["deadline"],
        "start_deadline_seconds": pods["start_deadline"],
        "retries": (3 if target == "kubernetes" else 0) if retries is None else retries,
        **{key: pods[key] for key in same},
    }
    try:
        return Deployment.model_validate(given)
    except ValidationError as error:
        translator = Translator(Deployment, given, nouns={}, extra_keys=lambda place: ())
        found = [translator.translate(details) for details in error.errors(include_url=False)]
        raise SpecError([Problem(_option(place), None, "", message) for place, message in found]) from error


# Where the deployment has another name for what an option brings.
_OPTIONS = {
    "volumes": "volume",
    "tolerations": "toleration",
    "deadline-seconds": "deadline",
    "start-deadline-seconds": "start-deadline",
}


def _option(place: Place) -> str:
    """The option that brought a value of the deployment."""
    words = "-".join(str(word) for word in place if word != "worker").replace("_", "-")
    if words in ("", "min-workers", "max-workers"):
        return "--workers"
    return f"--{_OPTIONS.get(words, words)}"


def _refuse_foreign_options(ctx: click.Context, target: Target, kind: Kind) -> None:
    known = {"kuberay": {*_KUBERAY, *_PODS}, "kubernetes": set(_PODS)}.get(target, set())
    for parameter in ctx.command.params:
        given = ctx.get_parameter_source(parameter.name or "") is not ParameterSource.DEFAULT
        if given and parameter.name in {*_KUBERAY, *_PODS} - known:
            where = "kuberay" if parameter.name in _KUBERAY else "kuberay or kubernetes"
            raise click.UsageError(f"{parameter.opts[0]} goes with --target {where} alone", ctx)
        if given and parameter.name in _RUNS and kind == "raycluster":
            raise click.UsageError(f"{parameter.opts[0]} is for runs, and --kind raycluster is none; leave it out", ctx)


def _put(texts: Mapping[str, str], folder: Path | None) -> None:
    """To the standard output, or into a folder."""
    if folder is None:
        for number, (name, text) in enumerate(texts.items()):
            if len(texts) > 1:
                click.echo(f"{'' if number == 0 else chr(10)}# {name}")
            click.echo(text, nl=False)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise FatalError(f"{folder}: cannot be written: {error.strerror}") from error
    click.echo(f"wrote {' and '.join(str(folder / name) for name in texts)}")
    timers = [name for name in texts if name.endswith(".timer")]
    for name in timers:
        click.echo(f"to start it: copy them to ~/.config/systemd/user, then systemctl --user enable --now {name}")

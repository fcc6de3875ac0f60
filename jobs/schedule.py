"""Reruns of a job: what a machine's own cron or systemd, or a Kubernetes cluster, is told."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cluster.kuberay import CONFIG_FOLDER, Deployment, object_name
from cluster.kuberay.cron_job import KUBECTL_IMAGE
from jobs.cron import Cron
from jobs.crontab import crontab_line, install_line
from jobs.document import write_document
from jobs.manifest import Kind, check_profile, container_command, growing_profile, manifest
from jobs.portable import portable_text, unreachable
from jobs.problem import Problem, SpecError
from jobs.profile import PROFILES, load_profile
from jobs.spec import built_in_specs, load_spec
from jobs.systemd import install_units, service_unit, timer_unit
from pipeline.errors import FatalError


@dataclass(frozen=True, slots=True)
class Rerun:
    """A job that is to run again and again.

    Attributes:
        spec: the spec, as the user named it.
        overrides: `--set` changes.
        profile: name or file of a profile; None: the default of the place.
        name: of objects, units and lines; None: from the spec's name.
        cron: when.
        zone: time zone of `cron`; None: that of the machine or cluster.
        environment: variables that the run gets, for anybody to read.
    """

    spec: str
    overrides: tuple[str, ...] = ()
    profile: str | None = None
    name: str | None = None
    cron: Cron | None = None
    zone: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def object_name(self) -> str:
        """The name of everything that is made for it."""
        return object_name(self.name or load_spec(self.spec, self.overrides).name)


def check_zone(name: str | None) -> None:
    """Whether there is a time zone of that name.

    Raises:
        SpecError: there is none.
    """
    try:
        if name is not None:
            ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        message = f"no time zone '{name}'; expected a name such as Europe/Berlin or UTC"
        raise SpecError([Problem("--time-zone", None, "", message)]) from error


def kubernetes_text(
    rerun: Rerun,
    kind: Kind,
    deployment: Deployment,
    *,
    in_image: Sequence[str] = (),
    kubectl_image: str | None = None,
) -> str:
    """The objects for Kubernetes, with the spec in them.

    Args:
        rerun: the job.
        kind: what runs it.
        deployment: its pods, without name, files, command and environment.
        in_image: folders of the image that the spec may read.
        kubectl_image: for the kind `cronjob`; default: Kubernetes' own.

    Raises:
        SpecError: of the spec, or of what in it the pods could not reach or hold.
    """
    spec = load_spec(rerun.spec, rerun.overrides)
    on_gpu, on_cpu = ("node", "laptop") if kind == "pod" else ("cluster", "cluster-cpu")
    name = rerun.profile or (on_gpu if deployment.worker.gpus else on_cpu)
    profile = load_profile(name)
    check_profile(name, profile, deployment, kind)
    if kind != "raycluster":
        writable = [volume.path for volume in deployment.volumes if not volume.read_only]
        problems = unreachable(spec, writable, [*(volume.path for volume in deployment.volumes), *in_image])
        if problems:
            raise SpecError(problems)
    files = {"spec.yaml": portable_text(rerun.spec, rerun.overrides)}
    grown = growing_profile(profile, deployment, kind)
    if grown is not None or name not in _built_in_profiles():
        files["profile.yaml"] = write_document(grown) if grown else Path(name).read_text(encoding="utf-8")
        name = f"{CONFIG_FOLDER}/profile.yaml"
    filled = {
        "name": rerun.object_name(),
        "files": files,
        "command": container_command(name),
        "environment": dict(rerun.environment),
    }
    image = kubectl_image or KUBECTL_IMAGE
    return manifest(kind, deployment.model_copy(update=filled), rerun.cron, zone=rerun.zone, kubectl_image=image)


def cron_text(rerun: Rerun) -> str:
    """The line for this machine's crontab.

    Raises:
        SpecError: of the spec; or a time zone is asked for, which not every cron knows.
    """
    if rerun.zone:
        message = "crond runs in the machine's time zone; take --target systemd, or write the line in that zone"
        raise SpecError([Problem("--time-zone", None, "", message)])
    name, folder = rerun.object_name(), Path.cwd()
    return crontab_line(name, _cron(rerun), _command(rerun), folder, folder / f"{name}.log", rerun.environment)


def systemd_texts(rerun: Rerun) -> dict[str, str]:
    """The units for this machine, by file name."""
    name = rerun.object_name()
    title = load_spec(rerun.spec, rerun.overrides).name
    return {
        f"{name}.service": service_unit(title, _command(rerun), Path.cwd(), rerun.environment),
        f"{name}.timer": timer_unit(title, _cron(rerun), rerun.zone),
    }


def install_cron(rerun: Rerun) -> str:
    """Puts the line into the crontab, and says so."""
    name = rerun.object_name()
    done = install_line(name, cron_text(rerun))
    what = {"added": "added to", "replaced": "replaced in", "unchanged": "is already in"}[done]
    return (
        f"{name}: {what} your crontab; next run {_next(rerun)}; cron skips times at which this machine is off, "
        "--target systemd makes up for them; remove it with crontab -e"
    )


def install_systemd(rerun: Rerun) -> str:
    """Writes and starts the timer, and says so."""
    name, texts = rerun.object_name(), systemd_texts(rerun)
    folder = install_units(name, texts[f"{name}.service"], texts[f"{name}.timer"])
    return (
        f"{name}.timer: started from {folder}; next run {_next(rerun)}; it runs while you are logged in, or always "
        "after loginctl enable-linger, and makes up for a time that it missed; remove it with systemctl --user disable "
        f"--now {name}.timer"
    )


def _cron(rerun: Rerun) -> Cron:
    if rerun.cron is None:
        raise SpecError([Problem("--cron", None, "", "missing; expected a cron line such as '0 3 * * 1'")])
    return rerun.cron


def _next(rerun: Rerun) -> str:
    now = datetime.now(ZoneInfo(rerun.zone) if rerun.zone else None).replace(tzinfo=None)
    return f"{_cron(rerun).next_after(now):%a %Y-%m-%d %H:%M}" + (f" {rerun.zone}" if rerun.zone else "")


def _command(rerun: Rerun) -> list[str]:
    """The words that run the job from the current folder, whatever the search path."""
    file = Path(rerun.spec).expanduser()
    built_in = rerun.spec in built_in_specs() and not file.is_file()
    words = [str(heatline_command()), "run", rerun.spec if built_in else str(file.absolute())]
    if rerun.profile:
        load_profile(rerun.profile)
        own = rerun.profile not in _built_in_profiles()
        words += ["--profile", str(Path(rerun.profile).absolute()) if own else rerun.profile]
    return words + [word for override in rerun.overrides for word in ("--set", override)]


def _built_in_profiles() -> set[str]:
    return {file.stem for file in PROFILES.glob("*.yaml")}


def heatline_command() -> Path:
    """The installed command: the one that runs, else the one beside the interpreter.

    Raises:
        FatalError: it is not installed.
    """
    for path in (Path(sys.argv[0]), Path(sys.executable).parent / "heatline"):
        if path.name == "heatline" and path.is_file():
            return path.absolute()
    raise FatalError(f"there is no heatline beside {sys.executable}: install it (pip install .) before scheduling it")


def installed_ray() -> str:
    """Ray's version here, which the image has to share."""
    return version("ray")

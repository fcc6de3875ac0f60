"""From a spec to what is submitted: everything that the job needs on the other side, checked here."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cluster.parcel import Parcel
from cluster.profile import Profile
from jobs.document import write_document
from jobs.portable import absent, is_local, portable_text
from jobs.problem import Problem, SpecError
from jobs.profile import load_profile
from jobs.spec import load_spec
from pipeline.store import open_output

SPEC_FILE, PROFILE_FILE, WEBHOOK_FILE = "spec.yaml", "profile.yaml", "webhook"
MODULE = "jobs.submitted"

COMMAND_FACT, OUTPUT_FACT = "command", "output"
"""What the other side is told: the words after `heatline` that submitted the job, and the folder made here."""


def make_parcel(
    path: str,
    overrides: Sequence[str],
    profile: str,
    *,
    fresh: bool = False,
    webhook: str | None = None,
    elsewhere: Sequence[str] = (),
    python: str | None = None,
    command: Sequence[str] = (),
) -> Parcel:
    """Check a spec and its profile, and put together what runs them on a cluster.

    A local output is made here at once: on the other side it has to be there already, which shows that the cluster
    shares it with this machine.

    Args:
        path, overrides: as for `load_spec`.
        profile: as for `load_profile`; whatever address it has, the job runs on the cluster that it is submitted to.
        fresh: compute everything again.
        webhook: address that is told of the end.
        elsewhere: absolute folders that only the cluster sees.
        python: the cluster's interpreter; default: this one where there is one in the same place, else `python`.
        command: the words that submitted the job, to be repeated to who has to go on.

    Raises:
        SpecError: of the spec or the profile, data or weights that are not there.
        FatalError: the output is something else's.
    """
    spec = load_spec(path, overrides)
    problems = absent(spec, elsewhere)
    if problems:
        raise SpecError(problems)
    settings = _for_the_cluster(profile)
    made = None
    if is_local(spec.output, elsewhere):
        made = spec.output
        open_output(spec.output, create=True)
    return Parcel(
        name=spec.name,
        output=spec.output,
        profile=profile,
        files={
            SPEC_FILE: portable_text(path, overrides),
            PROFILE_FILE: write_document(settings.model_dump(mode="json", exclude_defaults=True)),
        },
        arguments=("run", SPEC_FILE, "--profile", PROFILE_FILE, *(["--fresh"] if fresh else [])),
        module=MODULE,
        pythons=(python,) if python else (sys.executable, "python", "python3"),
        private={WEBHOOK_FILE: webhook} if webhook else {},
        facts={COMMAND_FACT: list(command), OUTPUT_FACT: made},
    )


def _for_the_cluster(name: str) -> Profile:
    """A profile that looks for the Ray which started the job.

    Raises:
        SpecError: it does without Ray.
    """
    profile = load_profile(name)
    if profile.executor != "ray":
        message = f"'{name}' runs in one process; take cluster, cluster-cpu, or one with executor: ray"
        raise SpecError([Problem("--profile", None, "", message)])
    return profile.model_copy(update={"address": "auto"})

"""What comes before a run: the spec is checked, its output opened, its work planned."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pyarrow as pa

from cluster.profile import Profile
from jobs.check import CheckedJob, check
from jobs.plan import Plan, cached_index, index_name, make_plan
from jobs.spec import JobSpec
from pipeline.claim import Claims
from pipeline.data import DatasetConfig, build_index
from pipeline.errors import FatalError
from pipeline.store import Output, open_output


def prepare(
    spec: JobSpec,
    profile: Profile,
    *,
    create: bool = False,
    fresh: bool = False,
    begin: Callable[[Output], Claims] | None = None,
) -> tuple[Output, CheckedJob, Plan]:
    """Check a spec against its data and weights, and plan it.

    Args:
        spec: the spec.
        profile: where it shall run.
        create: make the output where there is none; without it nothing is written to a place without one.
        fresh: plan all of it, whatever earlier runs committed; nothing is taken away here.
        begin: gives the claims by which a run shares the work with others; default: nothing is to be run.

    Raises:
        SpecError: with every problem found.
        FatalError: the output cannot be used, or another run is at work on what is to be done afresh.
        RetryableError: it does not answer.
    """
    indexes = _Indexes(spec.output)
    checked = check(spec, indexes.load)
    output = open_output(spec.output, create=create, missing_ok=True)
    if create:
        indexes.keep(output)
    # Before anything is looked up, so that no other run ends unseen in between.
    claims = begin(output) if begin is not None else None
    if fresh and claims is not None and claims.neighbours:
        raise FatalError(f"{output.uri}: another run is at work here, and --fresh would take its results away; stop it")
    return output, checked, make_plan(spec, checked, profile, output, indexes.load, claims, fresh=fresh)


class _Indexes:
    """Indexes of data sets: from the output that holds them, else made and remembered until there is an output."""

    def __init__(self, uri: str) -> None:
        self._made: dict[str, pa.Table] = {}
        try:
            self._output: Output | None = open_output(uri)
        except FatalError:
            # Missing, or not an output of ours: the check of the spec says so with its line.
            self._output = None
            if "://" in uri:
                # A store that refuses is told of before a large data set is listed.
                open_output(uri, missing_ok=True)

    def load(self, config: DatasetConfig) -> pa.Table:
        """The index of a source, listed once."""
        name = index_name(config)
        if self._output is not None:
            return cached_index(self._output, config)
        if name not in self._made:
            self._made[name] = build_index(config)
        return self._made[name]

    def keep(self, output: Output) -> None:
        """Put what was made into an output that is there now."""
        for name in self._made:
            output.cached_table(name, partial(self._made.__getitem__, name))
        self._output = output

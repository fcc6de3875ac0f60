"""Options of `heatline schedule` whose text is read into a value."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click
from pydantic import ValidationError

from cluster.kuberay import Toleration, Volume
from jobs.duration import DURATION, seconds_of
from pipeline.credential import holds_credential


def _reading(
    form: str, pattern: str, make: Callable[[dict[str, str | None]], object]
) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback that turns an option's text, or each of its texts, into a value.

    Args:
        form: what is expected, for people.
        pattern: the same as a regular expression with named groups.
        make: makes the value of the groups; it may raise `ValidationError`.
    """

    def one(ctx: click.Context, param: click.Parameter, text: str) -> object:
        match = re.fullmatch(pattern, text)
        try:
            if match is not None:
                return make(match.groupdict())
        except ValidationError:
            pass
        raise click.BadParameter(f"expected {form}, got '{text}'", ctx, param)

    def read(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if value is None:
            return None
        return tuple(one(ctx, param, text) for text in value) if param.multiple else one(ctx, param, value)

    return read


VOLUME = _reading(
    "CLAIM:FOLDER or CLAIM:FOLDER:ro, such as results:/results",
    r"(?P<claim>[^:]+):(?P<path>/[^:]+?)/?(?P<mode>:ro)?",
    lambda part: Volume(claim=str(part["claim"]), path=str(part["path"]), read_only=part["mode"] is not None),
)
TOLERATION = _reading(
    "KEY, KEY=VALUE or KEY=VALUE:EFFECT, such as nvidia.com/gpu:NoSchedule",
    r"(?P<key>[^=:]+)(=(?P<value>[^=:]*))?(:(?P<effect>[A-Za-z]+))?",
    lambda part: Toleration.model_validate({key: value for key, value in part.items() if value is not None}),
)
SELECTOR = _reading(
    "KEY=VALUE, such as cloud.google.com/gke-spot=true",
    r"(?P<key>[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?)=(?P<value>[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)",
    lambda part: (part["key"], part["value"]),
)
WORKERS = _reading(
    "a number, or the least and the most such as 0-8",
    r"(?P<least>[0-9]{1,6})(-(?P<most>[0-9]{1,6}))?",
    lambda part: (int(str(part["least"])), int(part["most"] or str(part["least"]))),
)
DEADLINE = _reading(
    "hours, or a duration such as 90m, 12h or 2d",
    DURATION,
    lambda part: seconds_of(str(part["number"]), str(part["unit"])),
)
START_DEADLINE = _reading(
    "hours, a duration such as 90m, 12h or 2d, or none",
    f"none|{DURATION}",
    lambda part: None if part["number"] is None else seconds_of(part["number"], str(part["unit"])),
)


def environment(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE, as often as given, for what anybody may read: no value is repeated in an error."""
    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
            message = f"expected NAME=VALUE, such as AWS_REGION=eu-west-1, got '{name}{'=…' if sign else ''}'"
            raise click.BadParameter(message, ctx, param)
        if name in found:
            raise click.BadParameter(f"{name} is given twice", ctx, param)
        if holds_credential(name, value):
            message = (
                f"{name} looks like a credential, and others may read what is written here; --secret names a Secret "
                "with it (cron: a line of the crontab; systemd: a file in ~/.config/environment.d)"
            )
            raise click.BadParameter(message, ctx, param)
        found[name] = value
    return found

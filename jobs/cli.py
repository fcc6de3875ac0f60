"""The command `heatline`: finds the command asked for, and turns what it raises into lines and exit codes."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence

import click

from jobs.problem import SpecError, hint
from pipeline.credential import without_credentials
from pipeline.errors import FatalError, RetryableError, ShardError
from pipeline.plain_text import plain_line

OK, FAILED, MISTAKE, STOPPED, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: all done; finished with failures; the user's mistake; stopped before the end; Ctrl-C."""

# Loaded when asked for, since PyTorch takes seconds to import and `--help` shall not wait for it: a command's
# name, where it stands, and its line in the help. A command may return an exit code.
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("jobs.commands.init:init", "Write a commented starter spec."),
    "validate": ("jobs.commands.validate:validate", "Tell every problem of specs; nothing is run."),
    "plan": ("jobs.commands.plan:plan", "Tell what a run would take: units, passes, time, bytes."),
    "run": ("jobs.commands.run:run", "Run a job, or finish what an earlier run left."),
    "submit": ("jobs.commands.submit:submit", "Run a job on a Ray cluster, through Ray Jobs."),
    "status": ("jobs.commands.job:status", "Tell how far jobs and runs are."),
    "logs": ("jobs.commands.job:logs", "Print what a submitted job prints."),
    "stop": ("jobs.commands.job:stop", "Stop a submitted job; what it committed stays."),
    "report": ("jobs.commands.report:report", "Build the page of a run again."),
    "compare": ("jobs.commands.compare:compare_command", "Compare two runs; exit code 1 where the later is worse."),
    "history": ("jobs.commands.history:history", "List the runs of an output over time."),
    "schedule": ("jobs.commands.schedule:schedule", "Write what runs a job again: Kubernetes, systemd, cron."),
    "show": ("jobs.commands.show:show", "Draw one sample's maps of all methods."),
    "list": ("jobs.commands.catalog:list_entries", "List methods, metrics, models and sources."),
    "describe": ("jobs.commands.catalog:describe", "Show parameters, cost and origin of one of them."),
    "schema": ("jobs.commands.schema:schema", "Print the JSON Schema of a spec, for editors."),
}


class _Commands(click.Group):
    """A group whose commands are imported only when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command; None where there is none of that name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command, or says which one was probably meant."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"no command '{args[0]}'{hint(args[0], list(COMMANDS))}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, without importing what it names."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _version() -> str:
    try:
        return importlib.metadata.version("heatline")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed: run from its folder)"


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), message="%(prog)s %(version)s")
def heatline() -> None:
    """Explain image classifiers at dataset scale, and measure whether to believe the explanations.

    A job is described by a spec, a YAML file: `heatline init` writes one to start from. Wherever a command
    takes a spec, the name of a built-in one (quickstart, cifar10, imagenet) will do as well.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: as after `heatline`; default: those of the process.

    Returns:
        The exit code: 0 done, 1 finished with failures, 2 the user's mistake, 3 stopped, 130 Ctrl-C.
    """
    try:
        code = heatline.main(
            args=None if arguments is None else list(arguments), prog_name="heatline", standalone_mode=False
        )
        sys.stdout.flush()
    except FatalError as error:
        for line in map(str, error.problems) if isinstance(error, SpecError) else [str(error)]:
            click.echo(plain_line(without_credentials(line)), err=True)
        return MISTAKE
    except RetryableError as error:
        # Storage that does not answer; under a command nothing tries again but the user.
        click.echo(plain_line(without_credentials(" ".join(str(error).split()))), err=True)
        return STOPPED
    except ShardError as error:
        # What is committed and cannot be read; says itself how to have it again, which nobody but the user can do.
        click.echo(plain_line(without_credentials(" ".join(str(error).split()))), err=True)
        return MISTAKE
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return MISTAKE
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "heatline"
        message = error.format_message().strip().rstrip(".")
        click.echo(f"{command}: {message}; see {command} --help", err=True)
        return MISTAKE
    except click.ClickException as error:
        click.echo(f"heatline: {error.format_message()}", err=True)
        return MISTAKE
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped by Ctrl-C", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`heatline list | head`); what is left in the buffer must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code if isinstance(code, int) else OK


if __name__ == "__main__":
    sys.exit(main())

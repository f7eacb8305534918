"""Command line of emp-trio: one module per command, imported only when the command is called.

A command is the function named in :data:`COMMANDS`, in the module of the same name. It returns an exit code, or None
for 0, and raises errors of :mod:`emp_trio.errors`. It imports slow modules in its body, to keep ``--help`` fast. Its
docstring is its help: the first line equals the summary in :data:`COMMANDS`; examples follow ``For example:``, because
cyclopts removes a section named ``Examples:``. Lines have at most 80 columns: the help keeps their breaks.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, NoReturn

if TYPE_CHECKING:
    from cyclopts import App

_HELP: Final = """Run AI generation jobs from a Redis queue. Accepted jobs are never lost, and one
process runs all the workers of a machine.

Getting started:

    emp-trio demo                            try everything on this machine
    emp-trio check --workers "openai:4"      check the configuration
    emp-trio worker --workers "openai:4"     run jobs
    emp-trio submit openai_responses --wait --payload '{"input": "Hello"}'

Set --redis or HUB_REDIS_URL to the URL of the queue's Redis.
Exit codes: 0 success, 1 failure, 2 wrong usage or configuration."""


class Command(NamedTuple):
    """A command: its name (also of its module and function), its group, and its line in the help."""

    name: str
    group: Literal["Run", "Look", "Act"]
    summary: str


COMMANDS: Final = (
    Command("demo", "Run", "Run a complete example on this machine."),
    Command("worker", "Run", "Claim jobs from the queue and run them until stopped."),
    Command("simulate", "Run", "Run a simulated service for tests of workers."),
    Command("check", "Look", "Check the mapping and the environment, and list all problems."),
    Command("explain", "Look", "Show the connector and the settings that a job type gets."),
    Command("connectors", "Look", "List the installed connectors, or the settings of one."),
    Command("schema", "Look", "Print the JSON Schema of the mapping file."),
    Command("jobs", "Look", "List jobs, or show one job."),
    Command("workers", "Look", "List the workers of the fleet with their state and job."),
    Command("watch", "Look", "Show the progress of jobs until they end."),
    Command("submit", "Act", "Submit a job to the queue."),
    Command("cancel", "Act", "Cancel waiting or running jobs."),
    Command("retry", "Act", "Queue failed jobs again."),
    Command("reap", "Act", "Requeue the jobs of killed workers when no worker is left."),
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit the process with its exit code.

    Args:
        arguments: command-line arguments without the program's name; None for those of this process.
    """
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code. Print errors instead of raising; only ``SystemExit`` is raised."""
    from cyclopts import CycloptsError

    try:
        result = _app(arguments)(
            _with_values(arguments), exit_on_error=False, print_error=False, result_action="return_value"
        )
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except SystemExit:
        raise
    except CycloptsError as error:
        from emp_trio.cli import output

        output.print_problem(_usage_error(error, arguments))
        return output.WRONG_USAGE
    except BrokenPipeError:  # "emp-trio jobs | head": the reader closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BaseException as error:  # noqa: BLE001  # last handler: every error becomes a message and an exit code
        from emp_trio.cli import output

        return output.report(error)


_OPTIONAL: Final = {"--adopt-orphans": "60"}  # options with an optional value, which cyclopts does not support


def _with_values(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the omitted optional values filled in."""
    following = [*arguments, "--"][1:]
    return [
        f"{word}={_OPTIONAL[word]}" if word in _OPTIONAL and after.startswith("-") else word
        for word, after in zip(arguments, following, strict=True)
    ]


def _app(arguments: Sequence[str]) -> App:
    from cyclopts import App, Group, Parameter

    from emp_trio import __version__

    app = App(
        name="emp-trio",
        help=_HELP,
        help_format="plaintext",
        version=f"emp-trio {__version__}",
        backend="trio",
        default_parameter=Parameter(negative=(), show_default=_shown_default),
        group_commands=Group("Options", sort_key=9),
        suppress_keyboard_interrupt=False,
    )
    groups = {name: Group(name, sort_key=key) for key, name in enumerate(("Run", "Look", "Act"))}
    for key, command in enumerate(COMMANDS):
        app.command(
            f"emp_trio.cli.{command.name}:{command.name}",
            name=command.name,
            group=groups[command.group],
            sort_key=key,
            # The called command shows its whole docstring; the others need not be imported for their summary.
            help=None if command.name in arguments else command.summary,
        )
    app.register_install_completion_command(help="Install completion for your shell.")
    return app


def _shown_default(value: Any) -> str | None:
    return None if value is None or value is False or value == "" else str(value)


def _usage_error(error: Exception, arguments: Sequence[str]) -> str:
    """Return the message for wrong usage. Pure; unlike cyclopts' own, it imports no command."""
    from cyclopts.exceptions import UnknownCommandError

    names = [command.name for command in COMMANDS]
    if isinstance(error, UnknownCommandError):
        word = (error.unused_tokens or [""])[0]
        near = difflib.get_close_matches(word, names, n=1)
        text = f"there is no {'option' if word.startswith('-') else 'command'} {word!r}" + (
            f"; did you mean {near[0]!r}?" if near else ""
        )
    else:
        text = str(error)
    called = next((word for word in arguments if word in names), "")
    return f"{text}\nSee: emp-trio {called + ' ' if called else ''}--help"

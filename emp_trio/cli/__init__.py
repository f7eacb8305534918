"""The command line. One module per command, each imported only when its command is called.

A command is a function of the module and the name that stand in :data:`COMMANDS`; it returns an exit code or None for
0, raises our errors for the rest, and imports what is heavy in its body, so that ``--help`` stays quick. Its docstring
is its help: the first line is the one in :data:`COMMANDS`, and examples stand under ``For example:`` (a section named
``Examples:`` would be taken out).
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, NoReturn

if TYPE_CHECKING:
    from cyclopts import App

_HELP: Final = """A worker for Redis-backed queues of AI generation jobs: nothing is lost,
and one process is a whole machine.

Begin here:

    emp-trio demo                                 everything, on this machine
    emp-trio check                                is the configuration complete?
    emp-trio worker --workers "openai:4"          take jobs and run them
    emp-trio submit openai_responses --wait --payload '{"input": "Hello"}'

The queue is the Redis that --redis or HUB_REDIS_URL names.
Exit codes: 0 done, 1 the job or the run failed, 2 wrong usage or configuration."""


class Command(NamedTuple):
    """A command in the table: its name and that of its module and function, its group, its line in the help."""

    name: str
    group: Literal["Run", "Look", "Act"]
    summary: str


COMMANDS: Final = (
    Command("demo", "Run", "Show everything at work, on this machine alone."),
    Command("worker", "Run", "Take jobs from the queue and run them until told to stop."),
    Command("simulate", "Run", "Run a simulated service, for workers to talk to."),
    Command("check", "Look", "Check the mapping and the environment; all problems at once."),
    Command("explain", "Look", "Explain the way of a job type to its connector and its settings."),
    Command("connectors", "Look", "List the installed connectors and what they can do."),
    Command("schema", "Look", "Print the JSON Schema of the mapping file."),
    Command("jobs", "Look", "List jobs, or show one."),
    Command("workers", "Look", "List the workers of the fleet and what they do."),
    Command("watch", "Look", "Follow jobs until they end."),
    Command("submit", "Act", "Put a job into the queue."),
    Command("cancel", "Act", "Cancel jobs, wherever they are."),
    Command("retry", "Act", "Put failed jobs back into the queue."),
    Command("reap", "Act", "Put back what workers left behind."),
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave the process with its exit code.

    Args:
        arguments: the words after the program's name; None: those of this process.
    """
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line; the exit code. Nothing that a command raises comes out, save ``SystemExit``."""
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
    except BrokenPipeError:  # "emp-trio jobs | head": the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BaseException as error:  # noqa: BLE001  # the last place there is: everything becomes text and a code
        from emp_trio.cli import output

        return output.report(error)


_OPTIONAL: Final = {"--adopt-orphans": "60"}  # options whose value may be left out, which cyclopts does not know


def _with_values(arguments: Sequence[str]) -> list[str]:
    """The words with the values that were left out."""
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
            # A command that is called has its whole docstring as its help; the others are not even imported.
            help=None if command.name in arguments else command.summary,
        )
    app.register_install_completion_command(help="Install completion for your shell.")
    return app


def _shown_default(value: Any) -> str | None:
    return None if value is None or value is False or value == "" else str(value)


def _usage_error(error: Exception, arguments: Sequence[str]) -> str:
    """The text for wrong usage. Pure; knows the commands without importing them, as cyclopts would."""
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

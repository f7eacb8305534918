"""What the commands print: results for people or as JSON on stdout, everything else on stderr.

For people: colours and drawn tables on a terminal only (rich honours ``NO_COLOR``); elsewhere a table is lines of
tab-separated cells, for ``cut`` and ``awk``.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from emp_trio.errors import ConfigError, EmpTrioError
from emp_trio.printable import escaped, escaped_json, printable
from emp_trio.secrets import MASK, Redactor, Secret, distinct, hides
from emp_trio.secrets.names import named_secret
from emp_trio.secrets.shapes import without_shapes

if TYPE_CHECKING:
    from rich.console import Console

OK, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


def console(*, stderr: bool = False) -> Console:
    """The console of stdout, or of stderr; it takes text as it is, without markup."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as JSON on one line of stdout, so that several make JSON lines.

    Characters that a terminal obeys, or that hide or turn others around (C1, bidirectional marks, line separators),
    stand there as ``\\uXXXX``: a program reads the same text.

    Args:
        value: JSON-like data or structs; a Secret in it shows as ``***``, and so does what this process holds of
            secrets. What a job brought goes through :func:`shown` first.
    """
    import msgspec

    def other(item: object) -> str:
        if isinstance(item, Secret):
            return MASK
        # what msgspec asks of a hook that does not know the type
        raise NotImplementedError(f"{type(item).__name__} has no form in JSON")

    text = msgspec.json.encode(value, enc_hook=other).decode()
    hidden = Redactor()
    if hidden.known(text) != text:
        text = msgspec.json.encode(hidden.known_in(msgspec.json.decode(text))).decode()
    print(escaped_json(text), flush=True)


def shown(value: Any) -> Any:
    """What a job brought or a worker made, fit to be printed: without secrets under names of secrets, and without those
    of known shapes. The signature of a URL in a result stays: without it the file could not be had.

    Args:
        value: JSON-like.
    """
    hidden = Redactor()
    match value:
        case dict():
            return distinct(
                (
                    hidden.known(str(name)),
                    MASK if hides(name, item) or (named_secret(value) and name == "value") else shown(item),
                )
                for name, item in value.items()
            )
        case list() | tuple():
            return [value[0], MASK] if named_secret(value) else [shown(item) for item in value]
        case str():
            return without_shapes(hidden.known(value), signatures=False)
        case _:
            return value


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, cut: bool = False) -> None:
    """Print a table on stdout.

    Args:
        columns: their titles; the first is what a row is found by, and is never shortened or folded.
        rows: as many cells each as there are columns.
        cut: whether other cells that are too wide for the terminal are cut, so that each row is one line, instead of
            folded.
    """
    out = console()
    if not out.is_terminal:
        for row in (columns, *rows):
            print("\t".join(map(printable, row)))
        return
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.table import Column, Table
    from rich.text import Text

    cells = [[printable(cell) for cell in row] for row in rows]
    first = Column(columns[0], width=max(cell_len(row[0]) for row in (columns, *cells)))
    table = Table(first, *(Column(title, overflow="fold") for title in columns[1:]), box=SIMPLE_HEAD, pad_edge=False)
    for row in cells:
        table.add_row(*(Text(cell, no_wrap=cut, overflow="ellipsis" if cut else "fold") for cell in row))
    out.print(table, soft_wrap=False)


def print_problem(text: str, *, label: str = "error") -> None:
    """Print what went wrong on stderr, after a label that is coloured on a terminal; lines after the first stay."""
    from rich.text import Text

    style = {"warning": "bold yellow"}.get(label, "bold red")
    shown = "\n".join(map(printable, Redactor().text(text).split("\n")))
    console(stderr=True).print(Text.assemble((f"{label}: ", style), shown))


def report(error: BaseException) -> int:
    """Print what a command raised, and give the exit code for it.

    Our errors are shown by their text; anything else is a defect of ours and is shown with its traceback, from which
    secrets of known shapes are taken out.

    Returns:
        2 for wrong configuration, 1 for any other failure, 130 for an interrupt by the user.
    """
    from emp_trio.nursery import errors_in  # imports trio, which --help need not wait for

    leaves = list(errors_in(error))
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        return INTERRUPTED
    ours = [leaf for leaf in leaves if isinstance(leaf, EmpTrioError)]
    for text in dict.fromkeys(leaf.message if not isinstance(leaf, ConfigError) else str(leaf) for leaf in ours):
        print_problem(text)
    if len(ours) < len(leaves):
        print_problem("this is a defect of emp-trio; please report it with what follows", label="internal error")
        trace = Redactor().text("".join(traceback.format_exception(error)))
        print(escaped(trace, keep="\n"), file=sys.stderr)
        return FAILED
    return WRONG_USAGE if any(isinstance(leaf, ConfigError) for leaf in ours) else FAILED

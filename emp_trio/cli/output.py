"""Print results on stdout, for people or as JSON, and everything else on stderr.

Colours and drawn tables appear only on a terminal (rich honours ``NO_COLOR``); elsewhere a table is lines of
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
    """Return a console for stdout or stderr that prints text without interpreting markup."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as one line of JSON on stdout.

    Control characters of terminals, bidirectional marks and line separators are escaped as ``\\uXXXX``; a JSON parser
    reads the same text.

    Args:
        value: JSON-like data or structs. Every Secret, and every secret known to this process, is printed as ``***``.
            Pass values from jobs through :func:`shown` first.
    """
    import msgspec

    def encode_other(item: object) -> str:
        if isinstance(item, Secret):
            return MASK
        # msgspec expects this from a hook that does not support the type
        raise NotImplementedError(f"{type(item).__name__} has no form in JSON")

    text = msgspec.json.encode(value, enc_hook=encode_other).decode()
    hidden = Redactor()
    if hidden.known(text) != text:
        text = msgspec.json.encode(hidden.known_in(msgspec.json.decode(text))).decode()
    print(escaped_json(text), flush=True)


def shown(value: Any) -> Any:
    """Redact a value from a job or a worker: mask values with names of secrets, and secrets of known formats.

    Signatures of URLs in results stay, because the file can't be fetched without them.

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
        columns: titles. The first column identifies the row and is never shortened or wrapped.
        rows: one cell per column.
        cut: shorten the other cells to fit the terminal, instead of wrapping them.
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
    """Print a message on stderr after a label, coloured on a terminal. Line breaks of the message are kept."""
    from rich.text import Text

    style = {"warning": "bold yellow"}.get(label, "bold red")
    shown = "\n".join(map(printable, Redactor().text(text).split("\n")))
    console(stderr=True).print(Text.assemble((f"{label}: ", style), shown))


def report(error: BaseException) -> int:
    """Print an error raised by a command, and return its exit code.

    Errors of emp-trio are printed as text. Any other error is a bug and is printed with a traceback, redacted.

    Returns:
        2 for a configuration error, 1 for any other failure, 130 for ^C.
    """
    from emp_trio.nursery import errors_in  # imports trio, which --help need not wait for

    leaves = list(errors_in(error))
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        return INTERRUPTED
    ours = [leaf for leaf in leaves if isinstance(leaf, EmpTrioError)]
    for text in dict.fromkeys(leaf.message if not isinstance(leaf, ConfigError) else str(leaf) for leaf in ours):
        print_problem(text)
    if len(ours) < len(leaves):
        print_problem("this is a defect of emp-trio; please report it with the traceback", label="internal error")
        trace = Redactor().text("".join(traceback.format_exception(error)))
        print(escaped(trace, keep="\n"), file=sys.stderr)
        return FAILED
    return WRONG_USAGE if any(isinstance(leaf, ConfigError) for leaf in ours) else FAILED

"""Errors of ``${...}`` references, with messages and hints for the author of the mapping. Pure."""

from __future__ import annotations

from typing import Final

from emp_trio.errors import ConfigError

FIRST: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")
"""Valid first characters of a variable name; digits are valid after the first."""

LONGEST_NAME: Final = 60
"""Maximum length of a name in a message."""


class SubstitutionError(ConfigError):
    """A text can't be substituted.

    Attributes:
        column: position of the reference's ``$`` in the text, from 1.
        variable: name of the variable, or None if there is no valid name.
        hint: how to fix it, or "".
        missing: true when a variable is missing, false when the text itself is wrong.
        also: the other missing variables of the same text.
    """

    def __init__(
        self, message: str, *, column: int, variable: str | None = None, hint: str = "", missing: bool = False
    ) -> None:
        super().__init__(message)
        self.column = column
        self.variable = variable
        self.hint = hint
        self.missing = missing
        self.also: tuple[SubstitutionError, ...] = ()

    def __str__(self) -> str:
        return f"column {self.column}: {self.message}" + (f" ({self.hint})" if self.hint else "")


def unclosed(column: int, variable: str | None) -> SubstitutionError:
    """Return the error for a reference without its ``}``."""
    return SubstitutionError(
        f"`${{` at column {column} is not closed",
        column=column,
        variable=variable,
        hint="add the missing `}`, or write `$${` for a literal `${`",
    )


def clip(name: str) -> str:
    """Shorten a very long name for a message."""
    return name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + "..."


def syntax_error(text: str, start: int, stop: int, column: int) -> SubstitutionError:
    """Return the error for the invalid reference whose name is ``text[start:stop]``."""
    name, following = clip(text[start:stop]), text[stop : stop + 1]
    hint = ""
    if stop >= len(text) and (not name or name[0] in FIRST):
        return unclosed(column, name or None)
    if not name and following == "}":
        message = "`${}` names no variable"
    elif name and name[0] not in FIRST:
        message = f"a variable name can't start with the digit {name[0]!r}"
    elif following == ":":
        message = f"`:` after {name} must be followed by `-`, `?` or `+`" if name else "`${:` names no variable"
        close = text.find("}", stop, stop + 40)
        word = text[stop + 1 : close] if close > 0 else "..."
        hint = f"did you mean `${{{name}:-{word.removeprefix('=')}}}`?" if name else ""
    elif following.isspace():
        message = f"{following!r} can't be part of a variable name"
        hint = "remove the spaces"
    elif following == "=":
        message = f"`=` can't follow the name {name}: nothing can be assigned here"
        hint = "write `:-` for a default"
    else:
        message = f"{following!r} can't be part of a variable name (ASCII letters, digits and `_`)"
    variable = name if name and name[0] in FIRST and following in (":", "=") else None
    return SubstitutionError(message, column=column, variable=variable, hint=hint)

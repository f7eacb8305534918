"""Substitute environment references such as ``${NAME:-default}`` in the strings of the mapping. Pure.

One left-to-right pass with an explicit stack; substituted values are not scanned again. Seven forms::

    ${N}      value of N; missing is an error          ${N:-w} ${N-w}   w if N is unset or empty / unset
    ${N:?w}   error w if N is unset or empty           ${N:+w} ${N+w}   w if N is set and not empty / set
    ${N?w}    error w if N is unset                    $$               one dollar sign, the only escape

``w`` may contain references and balanced braces. It is evaluated only if it is used; its syntax is always checked.
A ``$`` not followed by ``{`` or ``$``, a backslash and quotes are ordinary characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from emp_trio.mapping.substitution_errors import FIRST, SubstitutionError, clip, syntax_error, unclosed
from emp_trio.mapping.suggestions import did_you_mean
from emp_trio.secrets import MASK
from emp_trio.secrets.names import is_secret_variable

MAX_DEPTH: Final = 32
"""Maximum nesting of references."""

Source = Literal["literal", "environment", "default"]

_REST: Final = FIRST | frozenset("0123456789")
_MOST_ERRORS: Final = 20  # missing variables reported per text


class Piece(msgspec.Struct, frozen=True):
    """A stretch of a substituted text and its source.

    ``source`` is ``literal`` for the text of the file, ``environment`` for the value of ``variable``, ``default`` for
    the default text of the reference to ``variable``. The text of ``${N:+w}`` is literal, with ``variable`` N.
    """

    text: str
    source: Source
    variable: str | None = None


class Substituted(msgspec.Struct, frozen=True):
    """The result of :func:`substitute`.

    Attributes:
        value: the text with every reference replaced.
        pieces: stretches of ``value`` with their sources, in order; a reference replaced by nothing has an empty one.
        whole: whether the text was exactly one reference, such as ``${PORT:-8188}``; only then can it become a number.
    """

    value: str
    pieces: tuple[Piece, ...]
    whole: bool


class Reference(msgspec.Struct, frozen=True):
    """A reference as written: ``${variable operator word}``.

    ``operator`` is empty if there is no word; ``column`` is that of the ``$``, from 1; ``nested`` is true inside the
    word of another reference.
    """

    variable: str
    operator: str
    word: str
    column: int
    nested: bool


def substitute(text: str, env: Mapping[str, str]) -> Substituted:
    """Replace the environment references in ``text``.

    Args:
        text: string value of the mapping.
        env: the environment.

    Raises:
        SubstitutionError: the syntax is wrong, or a required variable is missing. Syntax errors come before missing
            variables; further missing variables are in ``also``.
    """
    run = _Run(text, env)
    pieces = run.parse()
    if run.missing:
        first, *further = run.missing
        first.also = tuple(further)
        raise first
    return Substituted("".join(p.text for p in pieces), tuple(pieces), run.whole)


def references(text: str) -> tuple[Reference, ...]:
    """Return the references of ``text``, each after those inside its word.

    Raises:
        SubstitutionError: the syntax is wrong.
    """
    run = _Run(text, {})
    run.parse()
    return tuple(
        Reference(variable, operator, text[start:stop], column, nested)
        for variable, operator, start, stop, column, nested in run.found
    )


def escape(text: str) -> str:
    """Escape ``text`` so that :func:`substitute` returns it unchanged."""
    return text.replace("$", "$$")


def is_secret_name(variable: str) -> bool:
    """Return whether the name marks a secret variable (``OPENAI_API_KEY``, but not ``MAX_TOKENS``)."""
    return is_secret_variable(variable)


class _Frame:
    """An unclosed ``${``. ``out`` collects its word; None if the word is not used."""

    __slots__ = ("braces", "column", "operator", "out", "start", "variable", "word")

    def __init__(self, column: int, variable: str, operator: str, word: int, out: list[Piece] | None) -> None:
        self.column = column
        self.variable = variable
        self.operator = operator
        self.word = word  # index of the first character of its word
        self.out = out
        self.start = len(out) if out is not None else 0
        self.braces = 0


class _Run:
    """One pass over one text."""

    def __init__(self, text: str, env: Mapping[str, str]) -> None:
        self.text = text
        self.env = env
        self.missing: list[SubstitutionError] = []
        self.found: list[tuple[str, str, int, int, int, bool]] = []
        self.whole = False
        self.stack: list[_Frame] = []
        self.pieces: list[Piece] = []
        self.run: list[str] = []  # ordinary text not yet in a piece

    def parse(self) -> list[Piece]:
        text, end, at = self.text, len(self.text), 0
        while at < end:
            char = text[at]
            if char == "$" and text.startswith("{", at + 1):
                self.flush()
                at = self.open(at)
            elif char == "$" and text.startswith("$", at + 1):
                self.run.append("$")
                at += 2
            elif self.stack:
                at = self.in_word(at, char)
            else:
                stop = text.find("$", at + 1)
                stop = end if stop < 0 else stop
                self.run.append(text[at:stop])
                at = stop
        if self.stack:
            raise unclosed(self.stack[-1].column, self.stack[-1].variable)
        self.flush()
        return self.pieces

    def in_word(self, at: int, char: str) -> int:
        frame = self.stack[-1]
        if char == "}" and not frame.braces:
            self.flush()
            self.close(at)
            return at + 1
        frame.braces += (char == "{") - (char == "}")
        self.run.append(char)
        return at + 1

    def flush(self) -> None:
        """Turn the ordinary text collected so far into a piece, if it is used."""
        if not self.run:
            return
        text = "".join(self.run)
        self.run.clear()
        if not self.stack:
            self.pieces.append(Piece(text, "literal"))
            return
        frame = self.stack[-1]
        if frame.out is not None:
            source: Source = "default" if frame.operator in ("-", ":-") else "literal"
            frame.out.append(Piece(text, source, frame.variable))

    def open(self, at: int) -> int:
        """Parse a reference up to its word, or to its end if it has none."""
        text, start, column = self.text, at + 2, at + 1
        stop = start
        while stop < len(text) and text[stop] in _REST:
            stop += 1
        name = text[start:stop]
        if len(self.stack) >= MAX_DEPTH:
            raise SubstitutionError(
                f"references are nested more than {MAX_DEPTH} levels deep", column=column, variable=name or None
            )
        operator = text[stop : stop + 2] if text.startswith(":", stop) else text[stop : stop + 1]
        if not name or name[0] not in FIRST or operator not in ("}", "-", ":-", "?", ":?", "+", ":+"):
            raise syntax_error(text, start, stop, column)
        out = self.stack[-1].out if self.stack else self.pieces
        value = self.env.get(name)
        if operator == "}":
            if out is not None:
                self.take(name, value, column, out)
            self.found.append((name, "", stop, stop, column, bool(self.stack)))
            self.note_whole(at, stop)
            return stop + 1
        present = value is not None and (value != "" or not operator.startswith(":"))
        word_out = out
        if operator.endswith("+"):
            word_out = out if present else None
            if out is not None and not present:
                out.append(Piece("", "literal", name))
        elif present:
            word_out = None
            if out is not None:
                self.take(name, value, column, out)
        elif operator.endswith("?") and out is not None:
            word_out = []
        word = stop + len(operator)
        self.stack.append(_Frame(column, name, operator, word, word_out))
        return word

    def take(self, name: str, value: str | None, column: int, out: list[Piece]) -> None:
        if value is not None:
            out.append(Piece(value, "environment", name))
            return
        self.miss(f"{clip(name)} is not set", name, column)
        out.append(Piece("", "environment", name))

    def miss(self, message: str, name: str, column: int) -> None:
        if len(self.missing) >= _MOST_ERRORS or any(e.variable == name for e in self.missing):
            return
        hint = did_you_mean(name, self.env) or f"set it, or write ${{{clip(name)}:-default}}"
        self.missing.append(SubstitutionError(message, column=column, variable=name, hint=hint, missing=True))

    def close(self, at: int) -> None:
        """Finish a reference with a word."""
        frame = self.stack.pop()
        self.found.append((frame.variable, frame.operator, frame.word, at, frame.column, bool(self.stack)))
        if frame.out is None:
            pass
        elif frame.operator.endswith("?"):
            # The operator's own text; values of secret variables in it stay hidden.
            text = "".join(MASK if _is_secret_value(p) else p.text for p in frame.out)
            state = "is empty" if frame.variable in self.env else "is not set"
            message = f"{clip(frame.variable)}: {text}" if text else f"{clip(frame.variable)} {state}"
            self.miss(message, frame.variable, frame.column)
        elif len(frame.out) == frame.start:
            source: Source = "default" if frame.operator.endswith("-") else "literal"
            frame.out.append(Piece("", source, frame.variable))
        self.note_whole(frame.column - 1, at)

    def note_whole(self, start: int, stop: int) -> None:
        if start == 0 and stop == len(self.text) - 1:
            self.whole = True


def _is_secret_value(piece: Piece) -> bool:
    return piece.source == "environment" and piece.variable is not None and is_secret_name(piece.variable)

"""Warn about valid text in a mapping that is probably a mistake, or that the fleet's parsers read differently.

The fleet has four parsers of ``${...}`` that disagree. A warning names each difference that would change a setting
(environment reference, "Migration").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from emp_trio.errors import Problem
from emp_trio.mapping.substitution import Reference, references


def lint_text(path: str, text: str) -> Iterable[Problem]:
    """Yield warnings about the syntax of ``text``.

    Args:
        path: JSON path of the text.
        text: string value.

    Raises:
        SubstitutionError: the syntax is wrong.
    """
    if "$" not in text:
        return
    if "$$" in text:
        yield _warning(path, text.index("$$") + 1, None, "`$$` stands for one `$`", "the fleet's parser kept both")
    for ref in references(text):
        yield from _lint_reference(path, ref)


def lint_values(path: str, text: str, env: Mapping[str, str]) -> Iterable[Problem]:
    """Yield warnings about the values of the variables in ``text``; they never contain a value.

    Raises:
        SubstitutionError: the syntax is wrong.
    """
    for ref in references(text):
        value = env.get(ref.variable)
        if value == "" and ref.operator == ":-":
            yield _warning(
                path,
                ref.column,
                ref.variable,
                f"{ref.variable} is set but empty, so its default is used",
                "the fleet's parser used the empty text; unset it, or write `-` for the default of unset only",
            )
        elif value is not None and not value.isprintable():
            yield _warning(
                path,
                ref.column,
                ref.variable,
                f"the value of {ref.variable} contains a line break or another control character",
                "it is used as it is",
            )
        elif value is not None and ('"' in value or "\\" in value):
            yield _warning(
                path,
                ref.column,
                ref.variable,
                f"the value of {ref.variable} contains a quote or a backslash",
                "it is used as it is; the fleet's parser read it as part of the JSON text",
            )


def _lint_reference(path: str, ref: Reference) -> Iterable[Problem]:
    name, word = ref.variable, ref.word
    if ref.operator == "-":
        yield _warning(
            path,
            ref.column,
            name,
            f"this is {name} with default {word!r}",
            f"a name has no hyphen; write ${{{name}:-{word}}} if an empty {name} should take the default too",
        )
    if ref.operator in ("-", ":-"):
        if word != word.strip():
            yield _warning(
                path, ref.column, name, f"the default of {name} keeps its spaces", "the fleet's parser removed them"
            )
        if "${" in word:
            yield _warning(
                path, ref.column, name, f"the default of {name} holds a reference", "the fleet's parser can't read it"
            )
        elif ":-" in word:
            yield _warning(
                path,
                ref.column,
                name,
                f"the default of {name} is {word!r}",
                f"the fleet's parser cut it to {word.split(':-')[0]!r}",
            )


def _warning(path: str, column: int, variable: str | None, message: str, hint: str) -> Problem:
    return Problem(path=path, column=column, variable=variable, message=message, hint=hint, severity="warning")

"""What is allowed in a mapping's text and still worth a word: likely slips, and differences from the fleet's parsers.

The fleet has four readers of ``${...}`` that disagree; each difference a text meets is named, so that nobody finds out
from a changed setting (environment reference, "Migration").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from emp_trio.errors import Problem
from emp_trio.mapping.substitution import Reference, references


def lint_text(path: str, text: str) -> Iterable[Problem]:
    """Warnings about how ``text`` is written.

    Args:
        path: JSON path of the text, for the warnings.
        text: a string value with valid syntax.

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
    """Warnings about the values that ``text`` meets in ``env``; it never shows them.

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

"""Substitute references in the texts of a setting that is a list or an object, such as a request body. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emp_trio.errors import Problem
from emp_trio.mapping.lint import lint_values
from emp_trio.mapping.paths import child
from emp_trio.mapping.substitution import Piece, substitute
from emp_trio.mapping.substitution_errors import SubstitutionError


class Nested:
    """Copy of a list or an object with every text substituted. A text stays text and never becomes a number.

    Args:
        value: list or object of the mapping; names of members are not substituted.
        path: JSON path of the value.
        env: the environment.

    Attributes:
        value: the copy.
        pieces: stretches from the environment or from a default, in order.
        problems: warnings about the texts.
        errors: path and error of every failed substitution; ``value`` is then incomplete.
    """

    def __init__(self, value: Any, path: str, env: Mapping[str, str]) -> None:
        self._env = env
        self.pieces: list[Piece] = []
        self.problems: list[Problem] = []
        self.errors: list[tuple[str, SubstitutionError]] = []
        self.value = self._copy(value, path)

    def _copy(self, value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return {name: self._copy(item, child(path, name)) for name, item in value.items()}
        if isinstance(value, list):
            return [self._copy(item, child(path, index)) for index, item in enumerate(value)]
        return self._text(value, path) if isinstance(value, str) else value

    def _text(self, text: str, path: str) -> str:
        try:
            done = substitute(text, self._env)
            self.problems += lint_values(path, text, self._env)
        except SubstitutionError as error:
            self.errors.append((path, error))
            return ""
        self.pieces += [piece for piece in done.pieces if piece.source != "literal"]
        return done.value

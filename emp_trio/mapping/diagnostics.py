"""Collect the problems of a configuration, so that one run reports all of them."""

from __future__ import annotations

from typing import Final

from emp_trio.errors import Problem
from emp_trio.mapping.substitution_errors import SubstitutionError

MOST: Final = 500
"""Caps the report; a generated file could contain thousands of errors."""


class TooMany(Exception):
    """More than :data:`MOST` problems: stop checking. Private to this package."""


class Diagnostics:
    """Problems reported so far, in order."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, problem: Problem) -> None:
        """Add one problem.

        Raises:
            TooMany: :data:`MOST` problems have been reported already.
        """
        if len(self.problems) >= MOST:
            raise TooMany
        self.problems.append(problem)

    def error(self, path: str, message: str, hint: str = "", *, variable: str | None = None) -> None:
        """Report a problem that prevents a start."""
        self.add(Problem(path=path, message=message, hint=hint, variable=variable))

    def warning(self, path: str, message: str, hint: str = "", *, variable: str | None = None) -> None:
        """Report a problem that does not prevent a start."""
        self.add(Problem(path=path, message=message, hint=hint, variable=variable, severity="warning"))

    def substitution(self, path: str, error: SubstitutionError) -> None:
        """Report a failed substitution, and every other variable missing from the same text."""
        for each in (error, *error.also):
            self.add(
                Problem(path=path, message=each.message, hint=each.hint, column=each.column, variable=each.variable)
            )

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Problems of severity error."""
        return tuple(p for p in self.problems if p.severity == "error")

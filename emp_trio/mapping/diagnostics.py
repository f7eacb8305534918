"""Collects what is wrong with a configuration, so that all of it comes out in one run."""

from __future__ import annotations

from typing import Final

from emp_trio.errors import Problem
from emp_trio.mapping.substitution_errors import SubstitutionError

MOST: Final = 500
"""Diagnostics kept; what a broken generator writes is not read to its end by anybody."""


class TooMany(Exception):
    """More than :data:`MOST` diagnostics: the rest is not looked at. Stays inside this package."""


class Diagnostics:
    """The problems found so far, in order."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, problem: Problem) -> None:
        """Add one problem.

        Raises:
            TooMany: there are enough.
        """
        if len(self.problems) >= MOST:
            raise TooMany
        self.problems.append(problem)

    def error(self, path: str, message: str, hint: str = "", *, variable: str | None = None) -> None:
        """Something that must be changed."""
        self.add(Problem(path=path, message=message, hint=hint, variable=variable))

    def warning(self, path: str, message: str, hint: str = "", *, variable: str | None = None) -> None:
        """Something worth a word."""
        self.add(Problem(path=path, message=message, hint=hint, variable=variable, severity="warning"))

    def substitution(self, path: str, error: SubstitutionError) -> None:
        """A text that can't be substituted, with everything that is missing in it."""
        for one in (error, *error.also):
            self.add(Problem(path=path, message=one.message, hint=one.hint, column=one.column, variable=one.variable))

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The errors among the problems."""
        return tuple(p for p in self.problems if p.severity == "error")

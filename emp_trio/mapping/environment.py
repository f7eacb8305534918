"""Check the required environment variables before anything connects. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from emp_trio.mapping.diagnostics import Diagnostics
from emp_trio.mapping.suggestions import did_you_mean


class Need(msgspec.Struct, frozen=True):
    """A variable that must be set and not blank, the path that requires it, and who needs it, for messages."""

    variable: str
    path: str
    by: str


def check_required(needs: Iterable[Need], env: Mapping[str, str], diagnostics: Diagnostics) -> None:
    """Report each missing variable once, with all who need it.

    Args:
        needs: required variables; the first need of a variable gives the problem its path.
        env: the environment; a blank value counts as missing.
        diagnostics: receives the problems.
    """
    by_variable: dict[str, list[Need]] = {}
    for need in needs:
        if not env.get(need.variable, "").strip():
            by_variable.setdefault(need.variable, []).append(need)
    filled = [name for name, value in env.items() if value.strip()]
    for variable, missing in by_variable.items():
        state = "is set but empty" if variable in env else "is not set"
        wanted_by = ", ".join(dict.fromkeys(need.by for need in missing))
        hint = did_you_mean(variable, filled) or "set it in the environment of the worker"
        diagnostics.error(missing[0].path, f"{variable} {state}; needed by {wanted_by}", hint, variable=variable)

"""Select the conformance tests that apply to a connector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

NEEDS: Final = {
    "service": "this connector talks to no service",
    "cancellation": "this connector has no work that it could stop",
    "job_status": "this connector cannot look for work that an earlier attempt began",
    "assets": "this connector saves no assets",
}
"""What a test may need of a connector, and why one without it is left out."""


def needs(what: str) -> Callable[[F], F]:
    """Mark a test that is not for every connector."""
    assert what in NEEDS

    def mark(test: F) -> F:
        test.needs = what  # type: ignore[attr-defined]
        return test

    return mark

"""Registry of the secrets that this process holds.

Code that opens a resource with secrets (connectors, storage, the connection to Redis, a job with its own credentials)
registers them with :func:`held` while the resource is open. Every :class:`~emp_trio.secrets.redactor.Redactor` and
:func:`excerpt` masks all registered secrets.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

from emp_trio.secrets.known import KnownSecrets
from emp_trio.secrets.secret import Secret
from emp_trio.secrets.shapes import without_shapes

MARGIN: Final = 1024
"""Minimum characters examined after a cut; more if a secret is longer."""

HELD: Final = KnownSecrets()
"""Secrets that this process holds now."""


def held(*secrets: Secret) -> AbstractContextManager[None]:
    """Mask ``secrets`` in all output of this process during the ``with`` block."""
    return _holding(secrets) if secrets else _NOTHING


@contextmanager
def _holding(secrets: tuple[Secret, ...]) -> Iterator[None]:
    HELD.add(secrets)
    try:
        yield
    finally:
        HELD.forget(secrets)


_NOTHING: Final = nullcontext()


def hold(*secrets: Secret) -> None:
    """Mask ``secrets`` in all output of this process until it exits."""
    HELD.add(secrets)


def excerpt(text: str, limit: int) -> str:
    """Return the beginning of a foreign text, masked before it is cut.

    Use it to shorten any text of a service: cutting first would leave the beginning of a secret that is recognised only
    as a whole.

    Args:
        text: text of any length; little more than ``limit`` characters are examined.
        limit: maximum characters returned.
    """
    head = text if len(text) <= limit else text[: limit + max(MARGIN, 2 * HELD.longest)]
    shown = without_shapes(HELD.without(head))
    if len(head) < len(text):
        shown = HELD.without_beginning(shown)
    return shown if len(shown) <= limit else shown[:limit]


def one_line(text: str, limit: int) -> str:
    """Like :func:`excerpt`, with each run of whitespace replaced by one blank."""
    return excerpt(" ".join(excerpt(text, 4 * limit).split()), limit)


def excerpt_around(text: str, place: int, *, before: int, after: int) -> str:
    """Return the characters around ``place`` of a foreign text, masked before it is cut."""
    margin = max(MARGIN, 2 * HELD.longest)
    start, stop = max(0, place - before - margin), min(len(text), place + after + margin)
    shown = without_shapes(HELD.without(text[start:stop]))
    if stop < len(text):
        shown = HELD.without_beginning(shown)
    middle = len(without_shapes(HELD.without(text[start:place])))
    return shown[max(0, middle - before) : middle + after]

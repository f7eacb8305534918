"""The secrets that this process holds, known in one place.

Whoever opens something with secrets says :func:`held` for as long as it is open (connectors, storage, the connection to
Redis, a job with credentials of its own). Every :class:`~emp_trio.secrets.redactor.Redactor` and :func:`excerpt` masks
all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

from emp_trio.secrets.known import KnownSecrets
from emp_trio.secrets.secret import Secret
from emp_trio.secrets.shapes import without_shapes

MARGIN: Final = 1024
"""Characters behind a cut that are looked at, or more where a secret is longer."""

HELD: Final = KnownSecrets()
"""What the process holds now."""


def held(*secrets: Secret) -> AbstractContextManager[None]:
    """Mask ``secrets`` wherever this process writes something, for as long as the block lasts."""
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
    """Mask ``secrets`` wherever this process writes something, until it ends."""
    HELD.add(secrets)


def excerpt(text: str, limit: int) -> str:
    """The beginning of a text of somebody else's, fit to be shown: masked first, and cut then.

    Every text of a service that is shortened goes through here, so that no part of a secret is left before the cut
    where the whole of it would have been known.

    Args:
        text: of any length; no more than a little beyond ``limit`` is looked at.
        limit: characters that are kept.
    """
    head = text if len(text) <= limit else text[: limit + max(MARGIN, 2 * HELD.longest)]
    shown = without_shapes(HELD.without(head))
    if len(head) < len(text):
        shown = HELD.without_beginning(shown)
    return shown if len(shown) <= limit else shown[:limit]


def one_line(text: str, limit: int) -> str:
    """As :func:`excerpt`, on one line: a blank in place of each run of them and of line breaks."""
    return excerpt(" ".join(excerpt(text, 4 * limit).split()), limit)


def excerpt_around(text: str, place: int, *, before: int, after: int) -> str:
    """So many characters before and after ``place`` of a text of somebody else's: masked first, and cut then."""
    margin = max(MARGIN, 2 * HELD.longest)
    start, stop = max(0, place - before - margin), min(len(text), place + after + margin)
    shown = without_shapes(HELD.without(text[start:stop]))
    if stop < len(text):
        shown = HELD.without_beginning(shown)
    middle = len(without_shapes(HELD.without(text[start:place])))
    return shown[max(0, middle - before) : middle + after]

"""Size limit above which foreign data is processed in a thread and in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

LARGE: Final = 256 * 2**10
"""Bytes or characters of foreign data above which it is processed in a thread, in pieces of this size."""


def slices(length: int) -> Iterator[tuple[int, int]]:
    """Yield the start and end of pieces of :data:`LARGE` for a text of ``length``."""
    for start in range(0, length, LARGE):
        yield start, min(start + LARGE, length)

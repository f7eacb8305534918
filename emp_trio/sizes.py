"""From which size on foreign data are large, and the pieces that they are worked on in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

LARGE: Final = 256 * 2**10
"""Bytes or characters of foreign data from which on work on them is done in a thread, and in pieces of this size."""


def slices(length: int) -> Iterator[tuple[int, int]]:
    """Beginning and end of pieces of :data:`LARGE`, for work on a text of ``length``."""
    for start in range(0, length, LARGE):
        yield start, min(start + LARGE, length)

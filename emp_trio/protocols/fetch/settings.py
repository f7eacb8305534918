"""Limits of the files that jobs name, and a file that has come."""

from __future__ import annotations

from typing import Annotated

import msgspec


class FetchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of the input files of jobs.

    Attributes:
        input_max_bytes: a larger file is refused, however it is given.
        input_timeout: seconds for one URL, with look-up, redirects and body.
        input_max_redirects: more are refused.
        input_allow_private: whether a URL may lead to private networks and this machine; metadata services stay closed.
    """

    input_max_bytes: Annotated[int, msgspec.Meta(gt=0)] = 20 * 2**20
    input_timeout: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    input_max_redirects: Annotated[int, msgspec.Meta(ge=0)] = 3
    input_allow_private: bool = False


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """A file as its server sent it; ``name`` is the last segment of its path, as it stands there, or ""."""

    data: bytes
    name: str

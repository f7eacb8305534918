"""Validate job ids, because keys, messages, logs and file names contain them. Pure.

A worker is more tolerant than :func:`why_refused`: it runs a job of any short id in UTF-8 whose keys are its own
(``functions/ids.lua``).
"""

from __future__ import annotations

import unicodedata
from typing import Final

LONGEST_ID: Final = 256
"""Bytes of an id in UTF-8."""

_OF_KEYS: Final = (":progress", ":attempt:")  # what follows an id in other keys (queue protocol 0.3, 1.1, 1.8)


def why_refused(job_id: str) -> str | None:
    """Why a job of this id can't be submitted, or None."""
    if not job_id:
        return "the id is empty"
    try:
        size = len(job_id.encode())
    except UnicodeEncodeError:
        return "the id is not UTF-8 text"
    if size > LONGEST_ID:
        return f"the id is {size} bytes long; at most {LONGEST_ID} are allowed"
    if any(unicodedata.category(character) == "Cc" for character in job_id):
        return "the id contains control characters"
    for part in _OF_KEYS:
        if part in job_id:
            return f'the id contains "{part}", so that its keys may be those of another job'
    return None

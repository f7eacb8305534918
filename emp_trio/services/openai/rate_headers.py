"""Read rate-limit headers of a successful response (OpenAI reference 2). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART: Final = r"\d{1,9}(?:\.\d{1,9})?(?:h|ms|m|s)"
_PARTS: Final = re.compile(rf"(?:{_PART})+", re.ASCII)
_ONE: Final = re.compile(r"([\d.]+)(\D+)", re.ASCII)


def parse_duration(text: str) -> float | None:
    """Seconds in a duration such as ``1s``, ``6m0s`` or ``120ms``; None where it can't be read."""
    text = text.strip()
    if not _PARTS.fullmatch(text):
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in _ONE.findall(text))


def exhausted_for(headers: Mapping[str, str]) -> float | None:
    """Seconds until a used-up window of requests or of tokens is renewed, the longer where both are used up.

    Args:
        headers: of an answer, in lower case.

    Returns:
        the wait, or None where something is left of both, or nothing is said that can be read.
    """
    waits = (
        parse_duration(headers.get(f"x-ratelimit-reset-{window}", ""))
        for window in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{window}", "").strip() == "0"
    )
    return max((wait for wait in waits if wait), default=None)

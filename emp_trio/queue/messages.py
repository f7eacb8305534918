"""Messages of the fleet's channels that a worker reads, and the form of their times. Pure.

Sources: queue protocol 2 (cancel_job), 2.1 (job_submitted).
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime
from typing import Final

import msgspec

_HEAD: Final = re.compile(rb'\s{0,64}\{\s{0,64}"job_id"\s{0,64}:\s{0,64}"([^"\\]{1,512})"')
_SMALL: Final = 64 * 1024  # bytes of an announcement that is read to its end


def iso(now: float) -> str:
    """Seconds since the epoch as the fleet's ISO text (UTC, milliseconds, ``Z``)."""
    second, part = divmod(now, 1)
    micros = round(part * 1_000_000)  # which may be a whole second
    return f"{_iso_second(int(second) + micros // 1_000_000)}{micros % 1_000_000 // 1000:03d}Z"


@functools.lru_cache(16)
def _iso_second(second: int) -> str:
    """The text but for its milliseconds; jobs come by the hundred in a second."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")


class _AboutJob(msgspec.Struct):
    job_id: str


def cancelled_job(message: bytes) -> str | None:
    """The id in a ``cancel_job`` message (queue protocol 2), or None where it can't be read."""
    return _job_id(message)


def announced_job(message: bytes) -> str | None:
    """The id in a ``job_submitted`` message (queue protocol 2.1), or None where it can't be read. The message holds
    the job's payload, so of a long one only the beginning is looked at, where the API writes the id."""
    if found := _HEAD.match(message):
        return found[1].decode("utf-8", "replace")
    return _job_id(message) if len(message) <= _SMALL else None


def _job_id(message: bytes) -> str | None:
    try:
        return msgspec.json.decode(message, type=_AboutJob).job_id
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None

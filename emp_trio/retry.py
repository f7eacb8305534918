"""When to try again: the one place that decides waits and attempts. Pure.

``next_wait`` serves the retries inside one call to a service (made by the protocol mixins only), ``requeue_delay`` the
queue's retry of a whole attempt.
"""

from __future__ import annotations

import email.utils
from collections.abc import Mapping
from typing import Final

import msgspec

from emp_trio.failures import Failure

LONGEST_WAIT: Final = 24 * 3600.0
"""Seconds that a job waits at most because a service said so (``Retry-After``); then it gets another try anyway."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How a call is repeated.

    Args:
        retries: repeats after the first try.
        base: seconds before the first repeat, doubled for each further one.
        cap: the longest pause in seconds.
        jitter: share of the pause that is taken off at random, 0 to 1.
        longest_stated: a wait stated by the service above this many seconds is not slept here: the job is handed back.
    """

    retries: int = 3
    base: float = 0.5
    cap: float = 8.0
    jitter: float = 0.25
    longest_stated: float = 120.0


def next_wait(policy: RetryPolicy, *, tried: int, failure: Failure, left: float, random: float) -> float | None:
    """Seconds to wait before the next try of a call, or None to stop.

    Args:
        tried: tries already made (1 after the first).
        failure: what the last try ended with; its ``retry_after`` beats the policy's own pause.
        left: seconds until the deadline; a wait that would not end before it is not begun.
        random: a number from 0 to 1.
    """
    if not failure.retry or tried > policy.retries:
        return None
    if failure.retry_after is not None:
        wait = failure.retry_after
        if wait > policy.longest_stated:
            return None
    else:
        wait = backoff(tried, base=policy.base, cap=policy.cap, jitter=policy.jitter, random=random)
    return wait if wait < left else None


def backoff(tried: int, *, base: float, cap: float, jitter: float, random: float) -> float:
    """``base`` doubled per try up to ``cap`` seconds, less a random share of up to ``jitter``."""
    pause: float = min(cap, base * 2 ** min(tried - 1, 60))
    return pause * (1 - jitter * random)


def requeue_delay(failure: Failure, *, retry_count: int, random: float) -> float:
    """Seconds until a failed job may be claimed again.

    A wait stated by the service counts, up to :data:`LONGEST_WAIT`; otherwise 1 s, doubled per failed attempt up to a
    minute, less a random half.

    Args:
        retry_count: failed attempts so far, including this one.
        random: a number from 0 to 1.
    """
    if failure.retry_after is not None:
        return min(failure.retry_after, LONGEST_WAIT)
    return backoff(retry_count, base=1.0, cap=60.0, jitter=0.5, random=random)


def parse_retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds a response asks to wait, from ``retry-after-ms`` or ``retry-after`` (seconds or an HTTP date).

    Args:
        headers: response headers, looked up in lower case.
        now: seconds since the epoch.

    Returns:
        the wait, or None when there is none, or it is zero, negative or unreadable (openai.md 3.4).
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            wait = float(value) * scale
        except ValueError:
            try:
                wait = email.utils.parsedate_to_datetime(value).timestamp() - now
            except (ValueError, TypeError, OverflowError):
                continue
        if 0 < wait < float("inf"):
            return wait
    return None

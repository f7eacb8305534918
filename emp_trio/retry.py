"""Decide waits between retries, for calls within an attempt and for whole attempts. Pure.

``next_wait`` is for retries of one call to a service (only protocol mixins retry calls), ``requeue_delay`` for the
queue's retry of an attempt.
"""

from __future__ import annotations

import email.utils
from collections.abc import Mapping
from typing import Final

import msgspec

from emp_trio.failures import Failure

LONGEST_WAIT: Final = 24 * 3600.0
"""Maximum seconds that a job waits because of ``Retry-After``."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Policy for retries of a call.

    Args:
        retries: maximum retries after the first try.
        base: seconds before the first retry, doubled for each further one.
        cap: maximum seconds between tries.
        jitter: maximum share of the wait subtracted at random, 0 to 1.
        longest_stated: maximum ``Retry-After`` in seconds to wait for; after a longer one the job is requeued.
    """

    retries: int = 3
    base: float = 0.5
    cap: float = 8.0
    jitter: float = 0.25
    longest_stated: float = 120.0


def next_wait(policy: RetryPolicy, *, tried: int, failure: Failure, left: float, random: float) -> float | None:
    """Return the seconds to wait before the next try of a call, or None to stop.

    Args:
        tried: number of tries made (1 after the first).
        failure: failure of the last try; its ``retry_after`` overrides the policy's wait.
        left: seconds until the deadline; a wait that would exceed it returns None.
        random: random number from 0 to 1.
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
    """Return ``base`` doubled per try up to ``cap`` seconds, minus a random share of up to ``jitter``."""
    pause: float = min(cap, base * 2 ** min(tried - 1, 60))
    return pause * (1 - jitter * random)


def requeue_delay(failure: Failure, *, retry_count: int, random: float) -> float:
    """Return the seconds until a failed job may be claimed again.

    A wait stated by the service is used, up to :data:`LONGEST_WAIT`. Otherwise it is 1 s, doubled per failed attempt up
    to a minute, minus a random share of up to a half.

    Args:
        retry_count: number of failed attempts, including this one.
        random: random number from 0 to 1.
    """
    if failure.retry_after is not None:
        return min(failure.retry_after, LONGEST_WAIT)
    return backoff(retry_count, base=1.0, cap=60.0, jitter=0.5, random=random)


def parse_retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Parse the seconds to wait from ``retry-after-ms`` or ``retry-after`` (seconds or an HTTP date).

    Args:
        headers: response headers with lower-case names.
        now: current time, in seconds since the epoch.

    Returns:
        seconds, or None if there is no wait, or it is zero, negative or invalid (OpenAI reference 3.4).
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

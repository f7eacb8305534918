"""Waits and attempts: every row of the policy."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.failures import Failure
from emp_trio.retry import RetryPolicy, backoff, next_wait, parse_retry_after, requeue_delay

POLICY = RetryPolicy(retries=3, base=0.5, cap=8.0, jitter=0.0, longest_stated=120.0)
NOW = 1_790_000_000.0


def failure(*, retry: bool = True, retry_after: float | None = None) -> Failure:
    return Failure(type="service_error", reason="service_down", message="x", retry=retry, retry_after=retry_after)


@pytest.mark.parametrize(
    ("tried", "options", "left", "wait"),
    [
        (1, {}, 100.0, 0.5),
        (2, {}, 100.0, 1.0),
        (3, {}, 100.0, 2.0),
        (4, {}, 100.0, None),  # three repeats
        (1, {"retry": False}, 100.0, None),
        (1, {"retry": False, "retry_after": 1.0}, 100.0, None),
        (1, {"retry_after": 7.0}, 100.0, 7.0),
        (1, {"retry_after": 0.01}, 100.0, 0.01),
        (1, {"retry_after": 120.0}, 200.0, 120.0),
        (1, {"retry_after": 120.1}, 200.0, None),  # handed back to the queue
        (1, {}, 0.5, None),  # it would end at the deadline
        (1, {"retry_after": 7.0}, 6.0, None),
    ],
)
def test_next_wait(tried: int, options: dict[str, Any], left: float, wait: float | None) -> None:
    assert next_wait(POLICY, tried=tried, failure=failure(**options), left=left, random=0.9) == wait


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_pauses_grow_to_the_cap_and_jitter_only_shortens_them(tried: int, random: float) -> None:
    pause = backoff(tried, base=0.5, cap=8.0, jitter=0.25, random=random)
    full = backoff(tried, base=0.5, cap=8.0, jitter=0.0, random=random)
    assert 0.75 * full <= pause <= full <= 8.0
    assert full <= backoff(tried + 1, base=0.5, cap=8.0, jitter=0.0, random=random)


@pytest.mark.parametrize(
    ("count", "random", "delay"), [(1, 0.0, 1.0), (2, 0.0, 2.0), (2, 1.0, 1.0), (7, 0.0, 60.0), (99, 1.0, 30.0)]
)
def test_a_job_waits_longer_after_each_failed_attempt(count: int, random: float, delay: float) -> None:
    assert requeue_delay(failure(), retry_count=count, random=random) == delay


def test_a_job_waits_as_long_as_the_service_said() -> None:
    assert requeue_delay(failure(retry_after=600.0), retry_count=1, random=0.5) == 600.0


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Mon, 21 Sep 2026 14:14:00 GMT"}, 40.0),
        ({"retry-after": "Mon, 21 Sep 2026 14:13:00 GMT"}, None),  # over
        ({"retry-after": "Mon, 99 Sep 2026 14:13:00 GMT"}, None),
    ],
)
def test_a_stated_wait_is_read(headers: dict[str, str], wait: float | None) -> None:
    assert parse_retry_after(headers, now=NOW) == wait


@given(st.text())
def test_no_header_is_fatal(value: str) -> None:
    wait = parse_retry_after({"retry-after": value, "retry-after-ms": value}, now=NOW)
    assert wait is None or 0 < wait < math.inf

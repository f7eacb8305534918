"""What people see of a job, whoever wrote it."""

from __future__ import annotations

from typing import Any

import pytest

from emp_trio.cli.job_view import age, details, outcome
from emp_trio.queue.client import JobInfo

NOW = 1_759_606_800.0  # 2025-10-04T19:40:00Z


@pytest.mark.parametrize(
    ("then", "text"),
    [
        ("2025-10-04T19:39:59.500Z", "0 s"),
        ("2025-10-04T19:38:45.123Z", "75 s"),
        ("2025-10-04T19:35:00.000Z", "5 min"),
        ("2025-10-04T16:40:00.000Z", "3 h"),
        ("2025-09-30T19:40:00.000Z", "4 d"),
        ("2025-10-04T19:41:00.000Z", "0 s"),  # another machine's clock is ahead
        ("1759606725.123456", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_age(then: str | None, text: str) -> None:
    assert age(then, NOW) == text


def job(**fields: Any) -> JobInfo:
    return JobInfo(**{"id": "j1", "type": "mock", "status": "completed", "state": "completed"} | fields)


def test_an_outcome_tells_how_long_it_took_and_what_was_made() -> None:
    files = [{"filename": "a.png", "metadata": {"cdn_url": "https://cdn.test/a.png"}}, {"path": "p/b.bin"}, {}, "odd"]
    result = {"success": True, "data": {}, "output_files": files}
    times = {"started_at": "2025-10-04T19:38:45.000Z", "ended_at": "2025-10-04T19:38:47.300Z"}
    assert outcome(job(result=result, **times)) == [
        ("completed", "j1 in 2.3 s"),
        *[("file", name) for name in ("https://cdn.test/a.png", "p/b.bin", "?")],
    ]


def test_a_cancelled_job_is_not_called_failed() -> None:
    cancelled = job(status="failed", state="failed", cancelled=True, error="changed my mind")
    assert outcome(cancelled) == [("cancelled", "j1"), ("error", "changed my mind")]
    assert dict(details(cancelled))["state"] == "cancelled"


def test_details_leave_out_what_is_not_set() -> None:
    shown = dict(details(job(status="pending", state="delayed", not_before="2025-10-04T19:40:00.000Z")))
    assert shown == {
        "id": "j1",
        "type": "mock",
        "state": "delayed (pending)",
        "priority": "50",
        "attempts": "0 begun, 0 failed of 3 allowed",
        "not before": "2025-10-04T19:40:00.000Z",
    }

"""Settings of the REST connectors: mistakes come out with their place, the fleet's variables still count."""

from __future__ import annotations

from typing import Any

import pytest

from emp_trio.errors import ConfigError
from tests.services.rest.support import configured, planned

SYNC, ASYNC = "RestSyncConnector", "RestAsyncConnector"


@pytest.mark.parametrize(
    ("name", "variable", "value", "path", "expected"),
    [
        (SYNC, "WORKER_REST_SYNC_BASE_URL", "http://x:1", "http.base_url", "http://x:1"),
        (SYNC, "WORKER_REST_SYNC_TIMEOUT_SECONDS", "90", "http.timeout", 90),
        (SYNC, "WORKER_REST_SYNC_TIMEOUT_SECONDS", "90", "http.read_timeout", 90),
        (SYNC, "WORKER_REST_SYNC_RETRY_ATTEMPTS", "7", "http.max_retries", 7),
        (SYNC, "WORKER_REST_SYNC_RETRY_DELAY_SECONDS", "0.5", "http.retry_delay", 0.5),
        (SYNC, "WORKER_REST_SYNC_METHOD", "PUT", "call.method", "PUT"),
        (SYNC, "WORKER_REST_SYNC_RESPONSE_FORMAT", "text", "response_format", "text"),
        (SYNC, "WORKER_REST_SYNC_HEALTH_URL", "/up", "health_path", "/up"),
        (SYNC, "WORKER_REST_SYNC_MAX_CONCURRENT_JOBS", "5", "limits.max_concurrent_jobs", 5),
        (ASYNC, "WORKER_REST_ASYNC_BASE_URL", "http://x:1", "http.base_url", "http://x:1"),
        (ASYNC, "WORKER_REST_ASYNC_TIMEOUT_SECONDS", "30", "polling.attempts", 16),
        (ASYNC, "WORKER_REST_ASYNC_RETRY_ATTEMPTS", "7", "http.max_retries", 7),
        (ASYNC, "WORKER_REST_ASYNC_RETRY_DELAY_SECONDS", "0.5", "http.retry_delay", 0.5),
        (ASYNC, "WORKER_REST_ASYNC_POLLING_INTERVAL_MS", "500", "polling.interval", 0.5),
        (ASYNC, "WORKER_REST_ASYNC_COMPLETION_ENDPOINT", "/state", "work.status_path", "/state"),
        (ASYNC, "WORKER_REST_ASYNC_STATUS_FIELD", "state", "work.status_at", "state"),
        (ASYNC, "WORKER_REST_ASYNC_RESULT_FIELD", "output", "answer.result_at", "output"),
        (ASYNC, "WORKER_REST_ASYNC_MAX_CONCURRENT_JOBS", "10", "limits.max_concurrent_jobs", 10),
    ],
)
def test_the_fleets_variables_reach_their_settings(
    name: str, variable: str, value: str, path: str, expected: Any
) -> None:
    found = configured(name, {}, {variable: value})
    for part in path.split("."):
        found = getattr(found, part)
    assert found == expected


def test_defaults() -> None:
    sync, later = configured(SYNC, {}), configured(ASYNC, {})
    assert (sync.http.base_url, sync.http.timeout, sync.call.method, sync.health_path) == (
        "http://localhost:8080",
        60,
        "POST",
        None,
    )
    assert (later.polling.interval, later.polling.attempts, later.work.status_path) == (2, 150, "/status/{id}")


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"path": "http://evil/"}, '.path: "http://evil/" does not fit path'),
        ({"path": "//evil/"}, '.path: "//evil/" does not fit path'),
        ({"files_at": "a/b"}, '.files_at: "a/b" does not fit files_at'),
        ({"status_at": "/a~2"}, '.status_at: "/a~2" does not fit status_at'),
        ({"done_words": "done"}, '.done_words: "done" does not fit done_words: Expected `array`, got `str`'),
        ({"method": "FETCH"}, '.method: "FETCH" does not fit method'),
        ({"body": {"a": {"$paylod": "/x"}}}, "body: /a: an object with $paylod is no template"),
        ({"body": ["x"], "method": "GET"}, "body: with the method GET it must be an object"),
        ({"headers": {"a b": "c"}}, "headers: 'a b' can't be sent"),
        ({"headers": {"a": "${LINES}"}}, "headers: 'a' can't be sent"),
        ({"body": {"a": "${NOT_SET}"}}, ".body.a column 1: NOT_SET is not set"),
        ({"status_paht": "/x"}, "has no setting 'status_paht' (did you mean status_path?)"),
    ],
)
def test_a_mistake_is_a_problem_with_its_place(config: dict[str, Any], line: str) -> None:
    try:
        problems = planned(ASYNC, config, {"LINES": "a\nb"}).services["s"].settings and _warnings(config)
    except ConfigError as error:
        problems = [str(problem) for problem in error.problems]
    assert any(line in problem and "$.services.s.api_config" in problem for problem in problems), problems


def _warnings(config: dict[str, Any]) -> list[str]:
    return [str(problem) for problem in planned(ASYNC, config).warnings]

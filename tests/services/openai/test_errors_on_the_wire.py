"""Every documented error, from the bytes on a socket to the class that decides what becomes of the job."""

from __future__ import annotations

import pytest

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import Refused, ServiceError
from emp_trio.services.openai.chat.text import OpenAITextConnector
from emp_trio.testing.faulty_server import open_faulty_server, reply
from tests.services.openai.chat.support import open_text
from tests.services.openai.error_cases import CASES, Case


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 60
    assert len({repr(case) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.status}-{case.reason}")
async def test_an_error(connector_context: ConnectorContext, case: Case) -> None:
    headers, body = case.raw()
    answer = reply(case.status, body, headers=headers | {"x-request-id": "req_1"})
    async with (
        open_faulty_server(answer) as faulty,
        open_text(OpenAITextConnector, faulty.url, connector_context) as connector,
    ):
        with pytest.raises(ServiceError) as caught:
            await connector.http.request("POST", "/chat/completions", json={}, retries=0)
    error = caught.value
    assert (error.type, error.reason, error.retry) == (case.type, case.reason, case.retry)
    assert error.retry_after == case.retry_after
    assert isinstance(error, Refused) == (case.type == "generation_refusal")
    assert (error.status, error.request_id) == (case.status, "req_1")
    assert error.maybe_started == (case.status >= 500 and case.status != 503)
    assert "<html" not in error.message
    assert "abcd" not in error.message
    assert error.failure.retry_after == case.retry_after

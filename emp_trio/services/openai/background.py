"""A response in the background: created once, polled, adopted after a crash, cancelled (OpenAI reference 6)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import msgspec
import structlog
import trio

from emp_trio.errors import ServiceError
from emp_trio.jobs import Job
from emp_trio.progress import ProgressReporter
from emp_trio.protocols.http import HttpAnswer
from emp_trio.protocols.polling import Wait
from emp_trio.services.openai.requests import ResponsesRequest
from emp_trio.services.openai.responses import Answer, read_response
from emp_trio.services.openai.settings import AccountSettings, OpenAISettings
from emp_trio.services.upstream import run_upstream

log = structlog.get_logger(__name__)

_LONGEST_ID: Final = 512


class Caller(Protocol):
    """What is needed of a connector: ``Http``, ``Polling``, and ``settings.openai``."""

    settings: Any

    @property
    def request(self) -> Callable[..., Awaitable[HttpAnswer]]:
        """:meth:`emp_trio.protocols.http.Http.request`."""

    @property
    def poll(self) -> Callable[..., Awaitable[Any]]:
        """:meth:`emp_trio.protocols.polling.Polling.poll`."""


async def run_background(caller: Caller, job: Job, progress: ProgressReporter, request: ResponsesRequest) -> Answer:
    """Run a request as a background response, or adopt the one that an earlier attempt has started.

    Returns:
        the answer.

    Raises:
        Refused: OpenAI declined.
        ServiceError: it failed, or was not done within ``poll_timeout``.
        trio.Cancelled: after the response was cancelled upstream, where ``progress.stop_upstream`` says so.
    """
    run = _Run(caller, job, progress, request)
    answer = await run_upstream(
        job,
        progress,
        key="response_id",
        usable=run.usable,
        start=run.start,
        wait=run.wait,
        cancel=run.cancel,
        grace=run.openai.cleanup_timeout,
    )
    return msgspec.structs.replace(answer, request_ids=tuple(filter(None, (run.created_by, run.seen_by))))


class _Run:
    """The calls of one attempt; ``created_by`` and ``seen_by`` are OpenAI's ids of the first and the latest."""

    def __init__(self, caller: Caller, job: Job, progress: ProgressReporter, request: ResponsesRequest) -> None:
        self.caller = caller
        self.progress = progress
        self.request = request
        self.openai: OpenAISettings = caller.settings.openai
        self.headers = request_headers(self.openai, job)
        self.created_by: str | None = None
        self.seen_by: str | None = None

    async def start(self) -> str:
        self.progress.report(5, "sending the request to OpenAI")
        answer = await self.caller.request("POST", "/responses", json=self.request.body, headers=self.headers)
        response = answer.json()
        found = response.get("id") if isinstance(response, dict) else None
        if not isinstance(found, str) or not found:
            raise ServiceError(
                "OpenAI took the request without giving the response an id",
                type="response_error",
                reason="missing_expected_data",
                request_id=answer.request_id,
                maybe_started=True,
            )
        log.info("response.created", response=found, request=answer.request_id)
        self.created_by = answer.request_id
        return found

    async def usable(self, response_id: str) -> bool:
        """Whether an earlier response is under way, done, or finally refused; one that went wrong is not waited for."""
        try:
            response = await self._retrieve(response_id)
        except ServiceError as error:
            if error.status == 404:
                return False
            raise
        try:
            self._read(response)
        except ServiceError as error:
            return not error.retry and error.code != "cancelled"
        return True

    async def wait(self, response_id: str) -> Answer:
        began = trio.current_time()

        async def look() -> Answer | Wait:
            try:
                response = await self._retrieve(response_id, retries=0)
            except ServiceError as error:
                if error.status == 404:  # expired or deleted: nothing about the request is invalid
                    error.type, error.reason = "response_error", "missing_expected_data"
                raise
            answer = self._read(response)
            if answer is not None:
                return answer
            elapsed = trio.current_time() - began
            self.progress.report(percent(elapsed), f"OpenAI: {response.get('status')} for {elapsed:.0f} s")
            return Wait(pause(elapsed, self.caller.settings.polling.interval))

        with trio.move_on_after(self.openai.poll_timeout):
            answer: Answer = await self.caller.poll(look, hint=f"response {response_id}")
            return answer
        return await self._last_look(response_id)

    async def cancel(self, response_id: str) -> None:
        await self.caller.request(
            "POST",
            f"/responses/{response_id}/cancel",
            headers=self.headers,
            idempotent=True,
            timeout=self.openai.cleanup_timeout,
        )
        log.info("response.cancelled", response=response_id)

    async def _last_look(self, response_id: str) -> Answer:
        """Time is up: cancel the response, and take what it has if it ended before that."""
        late = ServiceError(
            f"response {response_id} was not finished within {self.openai.poll_timeout:.3g} s and was cancelled",
            type="timeout",
            reason="processing_timeout",
        )
        try:
            await self.cancel(response_id)
            response = await self._retrieve(response_id)
        except ServiceError as error:
            raise late from error
        if response.get("status") == "cancelled":
            raise late
        answer = self._read(response)
        if answer is None:
            raise late
        return answer

    async def _retrieve(self, response_id: str, **options: Any) -> dict[str, Any]:
        answer = await self.caller.request(
            "GET", f"/responses/{response_id}", headers=self.headers, timeout=self.openai.call_timeout, **options
        )
        self.seen_by = answer.request_id
        response = answer.json()
        if not isinstance(response, dict):
            raise ServiceError(
                f"OpenAI sent {type(response).__name__} where a response object was expected",
                type="response_error",
                reason="invalid_response_format",
                request_id=answer.request_id,
            )
        return response

    def _read(self, response: dict[str, Any]) -> Answer | None:
        return read_response(response, picture_wanted=self.request.picture_wanted, image_model=self.request.image_model)


def request_headers(openai: AccountSettings, job: Job) -> dict[str, str]:
    """Headers of every call for a job (reference 2): the account's, and an id by which support can find the call."""
    found = {"openai-organization": openai.organization, "openai-project": openai.project}
    name = f"{job.id}-{job.attempt}".encode("ascii", "replace").decode()
    found["x-client-request-id"] = "".join(c if c.isprintable() else "?" for c in name)[-_LONGEST_ID:].strip()
    return {header: value for header, value in found.items() if value}


def pause(elapsed: float, interval: float) -> float:
    """Seconds until the next look at a response (reference 6.3): 2, 3, then 5 where the interval is 2."""
    return interval * (1 if elapsed < 10 else 1.5 if elapsed < 60 else 2.5)


def percent(elapsed: float) -> float:
    """Progress of a response of which nothing but its age is known: from 15 on, towards 85."""
    return 15 + 70 * elapsed / (elapsed + 30)

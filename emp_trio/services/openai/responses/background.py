"""A response in the background: created once, polled, adopted after a crash, cancelled (OpenAI reference 6)."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec
import structlog
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.errors import ServiceError
from emp_trio.jobs import Job
from emp_trio.offload import off_loop, weight
from emp_trio.protocols.http import HttpClient, HttpResponse
from emp_trio.protocols.http.paths import segment
from emp_trio.protocols.http.request import Sending
from emp_trio.protocols.polling import Ended, NotFinished, Poller, Wait
from emp_trio.retry import parse_retry_after
from emp_trio.services.billing import counted
from emp_trio.services.error_shapes import quoted
from emp_trio.services.openai.responses.answer import Answer, read_response
from emp_trio.services.openai.responses.request import ResponsesRequest, plain_choice
from emp_trio.services.openai.settings import AccountSettings, OpenAISettings
from emp_trio.services.remote_work import run_announced_work
from emp_trio.services.work_states import phase_of

T = TypeVar("T")

_MEMBERS: Final = frozenset(("id", "status", "output", "data", "images"))  # any of them makes it a response
_WRAPPERS: Final = ("response", "result")

log = structlog.get_logger(__name__)

_LONGEST_ID: Final = 512


class ResponsesClient(msgspec.Struct, frozen=True, kw_only=True):
    """The Responses API, as an account reaches it and patience allows.

    Attributes:
        openai: the account, the model, and the time that a response may take.
    """

    http: HttpClient
    poller: Poller
    openai: OpenAISettings


def pause(elapsed: float, interval: float) -> float:
    """Seconds until the next look at a response (OpenAI reference 6.3): 2, 3, then 5 where the interval is 2."""
    return interval * (1 if elapsed < 10 else 1.5 if elapsed < 60 else 2.5)


def steady(elapsed: float, interval: float) -> float:
    """Seconds until the next look at a response: always the interval."""
    return interval


async def run_background(
    client: ResponsesClient,
    job: Job,
    context: AttemptContext,
    request: ResponsesRequest,
    *,
    plan: Callable[[float, float], float] = pause,
) -> Answer:
    """Run a request as a background response, or adopt the one that an earlier attempt has started.

    Args:
        plan: seconds until the next look, of the seconds since the start and ``polling.interval``.

    Returns:
        the answer.

    Raises:
        Refused: OpenAI declined.
        ServiceError: it failed, or was not done within ``poll_timeout`` or ``polling.attempts``.
        trio.Cancelled: after the response was cancelled upstream, where ``context.stop_remote_work`` says so.
    """
    run = BackgroundRun(client, job, context, request, plan=plan)
    return await run_announced_work(
        job,
        context,
        key="response_id",
        usable=run.usable,
        run=run.to_the_end,
        wait=run.wait,
        cancel=run.cancel,
        grace=run.openai.cleanup_timeout,
    )


class BackgroundRun:
    """The calls of one attempt; ``created_by`` and ``seen_by`` are OpenAI's ids of the first and the latest.

    Args:
        client, job, context, request, plan: as of :func:`run_background`.
    """

    def __init__(
        self,
        client: ResponsesClient,
        job: Job,
        context: AttemptContext,
        request: ResponsesRequest,
        *,
        plan: Callable[[float, float], float] = pause,
    ) -> None:
        self.http = client.http
        self.poller = client.poller
        self.job = job
        self.progress = context
        self.request = request
        self.plan = plan
        self.openai = client.openai
        self.headers = request_headers(self.openai, job)
        self.created_by: str | None = None
        self.seen_by: str | None = None

    async def to_the_end(self, known: Callable[[str], Awaitable[None]]) -> Answer:
        """Create the response, tell ``known`` its id, and wait for its end. A service that answers at once, as those do
        that know no background, is not asked again: there may be nothing to ask for."""
        self.progress.report(5, "sending the request to OpenAI")
        async with counted(self.job, self.progress, ahead=True) as sending:
            response = await self.taken(lambda: self._create(sending))
            answer = await off_loop(weight(response), self.read, response)
            if answer is not None:
                return answer
            response_id = self._id(response)
        log.info("response.created", response=response_id, request=self.created_by)
        await known(response_id)
        return await self.wait(response_id)

    async def taken(self, send: Callable[[], Awaitable[T]]) -> T:
        """Send ``self.request``, once more with a plain ``tool_choice`` where the service takes no other."""
        try:
            return await send()
        except ServiceError as error:
            plain = plain_choice(self.request, error)
            if plain is None:
                raise
            log.info("response.plain_tool_choice", why=error.message)
            self.request = plain
        return await send()

    async def _create(self, sending: Sending) -> dict[str, Any]:
        answer = await self.http.request(
            "POST", "/responses", json=self.request.body, headers=self.headers, sending=sending
        )
        self.created_by = answer.request_id
        return _response(answer, maybe_started=True)

    def _id(self, response: dict[str, Any]) -> str:
        found = response.get("id")
        if not isinstance(found, str) or not found:
            raise ServiceError(
                "OpenAI took the request without giving the response an id",
                type="response_error",
                reason="missing_expected_data",
                request_id=self.created_by,
                maybe_started=True,
            )
        return found

    async def usable(self, response_id: str) -> bool:
        """Whether an earlier response is under way, done, or finally refused; one that went wrong is not waited for."""
        try:
            response, _ = await self._retrieve(response_id)
        except ServiceError as error:
            if error.status == 404:
                return False
            raise
        try:
            await off_loop(weight(response), self.read, response)
        except ServiceError as error:
            return not error.retry and error.code != "cancelled"
        return True

    async def wait(self, response_id: str) -> Answer:
        """Look at the response until it is finished; one that takes too long is cancelled."""
        began = trio.current_time()

        async def look() -> Answer | Wait | Ended:
            try:
                response, stated = await self._retrieve(response_id, retries=0)
            except ServiceError as error:
                if error.status == 404:  # expired or deleted: nothing about the request is invalid
                    error.type, error.reason = "response_error", "missing_expected_data"
                raise
            try:
                answer = await off_loop(weight(response), self.read, response)
            except ServiceError as error:
                return Ended(error)
            if answer is not None:
                return answer
            elapsed = trio.current_time() - began
            self.progress.report(percent(elapsed), f"OpenAI: {response.get('status')} for {elapsed:.0f} s")
            return Wait(stated or 0.0)

        interval = self.poller.settings.interval
        limit = self.openai.poll_timeout
        with trio.move_on_after(limit):
            try:
                found: Answer = await self.poller.poll(
                    look, hint=f"response {response_id}", interval=lambda age: self.plan(age, interval)
                )
                return found
            except NotFinished as error:
                limit = error.seconds
        return await self.last_look(response_id, limit)

    async def cancel(self, response_id: str) -> None:
        """Stop the response."""
        await self.http.request(
            "POST",
            f"/responses/{segment(response_id)}/cancel",
            headers=self.headers,
            idempotent=True,
            timeout=self.openai.cleanup_timeout,
        )
        log.info("response.cancelled", response=response_id)

    async def last_look(self, response_id: str, seconds: float) -> Answer:
        """Time is up after ``seconds``: cancel the response, and take what it has if it ended before that."""
        late = ServiceError(
            f"response {response_id} was not finished within {seconds:.3g} s and was cancelled",
            type="timeout",
            reason="processing_timeout",
        )
        try:
            await self.cancel(response_id)
            response, _ = await self._retrieve(response_id)
        except ServiceError as error:
            raise late from error
        try:
            answer = await off_loop(weight(response), self.read, response)
        except ServiceError as error:
            if phase_of(response.get("status")) == "cancelled":
                raise late from error
            raise
        if answer is None:
            raise late
        return answer

    async def _retrieve(self, response_id: str, *, retries: int | None = None) -> tuple[dict[str, Any], float | None]:
        """The response, and the seconds that OpenAI asks to wait before the next look."""
        answer = await self.http.request(
            "GET",
            f"/responses/{segment(response_id)}",
            headers=self.headers,
            timeout=self.openai.call_timeout,
            retries=retries,
        )
        self.seen_by = answer.request_id
        return _response(answer), parse_retry_after(answer.headers, now=time.time())

    def read(self, response: dict[str, Any]) -> Answer | None:
        """What a response says; None while it is not finished. Raises what it failed with."""
        answer = read_response(response, image_wanted=self.request.image_wanted, image_model=self.request.image_model)
        return answer and self.named(answer)

    def named(self, answer: Answer) -> Answer:
        """``answer`` with OpenAI's ids of the calls."""
        return msgspec.structs.replace(answer, request_ids=tuple(filter(None, (self.created_by, self.seen_by))))


def _response(answer: HttpResponse, *, maybe_started: bool = False) -> dict[str, Any]:
    response = answer.json()
    if isinstance(response, dict) and not response.keys() & _MEMBERS:  # wrapped by a gateway
        response = next((found for name in _WRAPPERS if isinstance(found := response.get(name), dict)), response)
    if not isinstance(response, dict) or not response.keys() & _MEMBERS:
        raise ServiceError(
            f"OpenAI sent {quoted(response)} where a response object was expected",
            type="response_error",
            reason="invalid_response_format",
            request_id=answer.request_id,
            maybe_started=maybe_started,
        )
    return response


def request_headers(openai: AccountSettings, job: Job) -> dict[str, str]:
    """Headers of every call for a job (OpenAI reference 2): the account's, and an id by which support can find
    the call."""
    found = {"openai-organization": openai.organization, "openai-project": openai.project}
    name = f"{job.id}-{job.attempt}".encode("ascii", "replace").decode()
    found["x-client-request-id"] = "".join(c if c.isprintable() else "?" for c in name)[-_LONGEST_ID:].strip()
    return {header: value for header, value in found.items() if value}


def percent(elapsed: float) -> float:
    """Progress of a response of which nothing but its age is known: from 15 on, towards 85."""
    return 15 + 70 * elapsed / (elapsed + 30)

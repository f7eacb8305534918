"""``HttpClient``: calls to a service over HTTP, with one pool per connector, and the only retries inside a call."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, Literal, TypeVar, Unpack

import trio

from emp_trio.errors import ConfigError, ServiceError
from emp_trio.offload import off_loop, weight
from emp_trio.protocols.auth import auth_secrets
from emp_trio.protocols.http.attempts import RequestAttempts
from emp_trio.protocols.http.errors import may_have_started
from emp_trio.protocols.http.hooks import HttpHooks
from emp_trio.protocols.http.request import CallOptions, make_call
from emp_trio.protocols.http.response import HttpResponse, HttpStream
from emp_trio.protocols.http.settings import HttpSettings
from emp_trio.protocols.rate_limiter import RateLimiter
from emp_trio.protocols.urls import origin, shown_url
from emp_trio.retry import RetryPolicy, parse_retry_after
from emp_trio.secrets import held

if TYPE_CHECKING:
    from emp_trio.protocols.http.transport import HttpTransport

T = TypeVar("T")

_ERROR_BYTES: Final = 64 * 2**10  # enough for any error body, and no more is read of one


class HttpClient:
    """Calls to one service; made by :func:`open_http_client`.

    A call is repeated where the service can't have started work on it (no connection, a request that was not sent to
    its end, 408, 409, 429, 503), and after any fault worth a retry where it is idempotent; never beyond its timeout or
    the caller's deadline. Everything else is left to the queue, with ``maybe_started`` and ``retry_after`` on the error
    (OpenAI reference 3.3 to 3.5).

    Attributes:
        settings: how the service is reached.
    """

    def __init__(
        self, transport: HttpTransport, settings: HttpSettings, hooks: HttpHooks, limiter: RateLimiter | None
    ) -> None:
        self._transport = transport
        self.settings = settings
        self._hooks = hooks
        self._limiter = limiter

    async def request(
        self,
        method: str,
        path: str,
        *,
        max_bytes: int | None = None,
        expect: Literal["json", "any"] = "json",
        **options: Unpack[CallOptions],
    ) -> HttpResponse:
        """Make a call and read its answer.

        Args:
            method: HTTP method.
            path: appended to ``base_url``; or an absolute URL, which gets the credentials on base_url's origin only.
            max_bytes: limit of the body, instead of the settings'.
            expect: ``json`` makes an answer that is not JSON an error; ``any`` takes it as it is.
            options: see :class:`~emp_trio.protocols.http.request.CallOptions`.

        Raises:
            ServiceError: no usable answer; ``maybe_started`` is set where a call that is not idempotent may have run.

        A cancelled call is not repeated and its connection is closed; whether the service had started is unknown.
        """
        accept = "application/json" if expect == "json" else "*/*"
        attempts = await off_loop(weight(options.get("json")), self._attempts, method, path, accept, options)
        limit = max_bytes if max_bytes is not None else self.settings.max_response_bytes

        async def read(stream: HttpStream) -> HttpResponse:
            try:
                answer = HttpResponse(
                    status=stream.status, headers=stream.headers, body=await stream.read(limit), tries=stream.tries
                )
            finally:
                await stream.aclose()
            if expect == "json":
                value = await off_loop(len(answer.body), answer.json)
                if (error := self._hooks.error_in(value)) is not None:
                    raise error
            return answer

        with attempts.limited():
            return await self._repeat(attempts, read)

    @asynccontextmanager
    async def stream(self, method: str, path: str, **options: Unpack[CallOptions]) -> AsyncIterator[HttpStream]:
        """Make a call whose answer is read piece by piece inside the block.

        The status has been checked, and the call repeated as :meth:`request` does, when the block begins; nothing is
        repeated after that. The timeout covers the whole block. Arguments and errors are those of :meth:`request`.
        """
        attempts = await off_loop(weight(options.get("json")), self._attempts, method, path, "*/*", options)

        async def hand_over(stream: HttpStream) -> HttpStream:
            return stream

        with attempts.limited():
            stream = await self._repeat(attempts, hand_over)
            try:
                yield stream
            finally:
                await stream.aclose()

    def _attempts(self, method: str, path: str, accept: str, options: CallOptions) -> RequestAttempts:
        settings = self.settings
        given = options.get("auth")
        auth = self._hooks.auth() if given is None else given
        timeout, retries = options.get("timeout"), options.get("retries")
        try:
            call = make_call(method, path, base_url=settings.base_url, auth=auth, accept=accept, options=options)
        except ValueError as error:
            raise ServiceError(
                f"the URL of a call can't be read: {shown_url(path)}",
                type="validation_error",
                reason="invalid_format",
                retry=False,
            ) from error
        return RequestAttempts(
            call,
            seconds=settings.timeout if timeout is None else timeout,
            policy=RetryPolicy(retries=settings.max_retries if retries is None else retries, base=settings.retry_delay),
            secrets=auth_secrets(auth),
            own_account=given is None,
            sending=options.get("sending"),
        )

    async def _repeat(self, attempts: RequestAttempts, use: Callable[[HttpStream], Awaitable[T]]) -> T:
        """Try until ``use`` has got what it wants of an answer, or there is no point in another try."""
        while True:
            attempts.begin_try()
            try:
                if self._limiter is not None and attempts.own_account and not attempts.call.idempotent:
                    await self._limiter.pause_over()
                stream = HttpStream(await self._transport.send(attempts.call, attempts.trace), attempts)
                if not 200 <= stream.status < 300:
                    raise await self._error(stream, attempts)
                if attempts.own_account:
                    self._hooks.answered(stream.headers)
                return await use(stream)
            except ServiceError as error:
                attempts.complete(error)
                wait = attempts.wait_after(error)
                if wait is None:
                    raise
            await trio.sleep(wait)

    async def _error(self, stream: HttpStream, attempts: RequestAttempts) -> ServiceError:
        """The error that an answer with an error status stands for."""
        body = bytearray()
        try:
            with suppress(ServiceError):  # the status says enough
                async for chunk in stream:
                    body += chunk
                    if len(body) > _ERROR_BYTES:
                        break
        finally:
            await stream.aclose()
        error = self._hooks.describe_error(stream.status, stream.headers, bytes(body[:_ERROR_BYTES]))
        if error.retry_after is None:
            error.retry_after = parse_retry_after(stream.headers, now=time.time())
        error.maybe_started = error.maybe_started or may_have_started(stream.status)
        stated = error.retry_after if stream.status == 429 and error.retry and attempts.own_account else None
        if stated is not None and self._limiter is not None:
            self._limiter.slow_down(stated)
        return error


@asynccontextmanager
async def open_http_client(
    settings: HttpSettings, *, user_agent: str, hooks: HttpHooks | None = None, limiter: RateLimiter | None = None
) -> AsyncIterator[HttpClient]:
    """A client for the block; at its end the connections are closed.

    Args:
        settings: how the service is reached.
        user_agent: what the client calls itself.
        hooks: credentials and errors of the service; none of either where left out.
        limiter: its pauses are kept by calls that begin work, and begun by a 429 that states a wait.

    Raises:
        ConfigError: ``base_url`` is not an absolute http or https URL, or a credential can't stand in a header.
    """
    from emp_trio.protocols.http.transport import open_transport  # httpx costs more than all of --help may

    try:
        usable = origin(settings.base_url)[0] in ("http", "https")
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"base_url must be an absolute http or https URL, not {shown_url(settings.base_url)!r}")
    hooks = HttpHooks() if hooks is None else hooks
    async with open_transport(settings, user_agent) as transport:
        with held(*auth_secrets(hooks.auth())):
            yield HttpClient(transport, settings, hooks, limiter)

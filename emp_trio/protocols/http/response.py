"""HTTP responses of a service: complete, or streamed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.protocols.http.errors import bad_answer
from emp_trio.protocols.wire_json import declared_charset, decode_json

if TYPE_CHECKING:
    from emp_trio.protocols.http.attempts import RequestAttempts
    from emp_trio.protocols.http.transport import Reply


class HttpResponse(msgspec.Struct, kw_only=True):
    """A complete answer.

    Attributes:
        status: HTTP status, 200 to 299.
        headers: names in lower case.
        body: as sent, decompressed.
        tries: how often the call was made, 1 without repeats.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    tries: int = 1
    _value: Any = msgspec.UNSET

    @property
    def request_id(self) -> str | None:
        """The service's id of the call, for its support."""
        return self.headers.get("x-request-id")

    def json(self) -> Any:
        """The body as a JSON value, decoded once.

        Raises:
            ServiceError: response_error; the body is empty, of another type, or broken.
        """
        if self._value is msgspec.UNSET:
            try:
                self._value = decode_json(self.body, charset=declared_charset(self.headers))
            except ServiceError as error:
                raise self._not_json(error) from error.__cause__
        return self._value

    def _not_json(self, error: ServiceError) -> ServiceError:
        media_type = self.headers.get("content-type", "")
        if not self.body:
            return bad_answer(f"an empty answer ({self.status}) instead of JSON", reason="missing_expected_data")
        if "json" not in media_type.lower():
            return bad_answer(
                f"an answer of type {media_type or 'unknown'!r} instead of JSON", reason="unexpected_content_type"
            )
        return error


class HttpStream:
    """An answer whose body is still coming, good inside the block of ``Http.stream``.

    Attributes:
        status: HTTP status, 200 to 299.
        headers: names in lower case.
        tries: how often the call was made.
        request_id: the service's id of the call.
    """

    def __init__(self, reply: Reply, attempts: RequestAttempts) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self.tries = attempts.tried
        self.request_id = attempts.request_id = reply.headers.get("x-request-id")
        self._reply = reply
        self._attempts = attempts

    def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces as they come, decompressed; it can be read once.

        Iterating raises ServiceError where the body breaks off, or nothing comes for the read timeout.
        """
        return self

    def __aiter__(self) -> HttpStream:
        return self

    async def __anext__(self) -> bytes:
        """The next piece of the body."""
        try:
            return await anext(self._reply)
        except ServiceError as error:
            self.explain(error)
            raise

    async def read(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            ServiceError: response_error, not to be retried, when it is larger than ``limit`` bytes.
        """
        declared = self.headers.get("content-length", "")
        parts: list[bytes] = []
        size = int(declared) if declared.isdecimal() else 0
        if size <= limit:
            size = 0
            async for chunk in self:
                size += len(chunk)
                parts.append(chunk)
                if size > limit:
                    break
        if size > limit:
            raise bad_answer(
                f"the answer is larger than {limit} bytes (max_response_bytes)",
                reason="invalid_response_format",
                retry=False,
            )
        return b"".join(parts)

    def explain(self, error: ServiceError) -> ServiceError:
        """Put method, URL and whether the work may have started into an error about what is in this stream."""
        return self._attempts.complete(error)

    async def aclose(self) -> None:
        """Give the connection back; one whose body was not read to its end is closed."""
        await self._reply.aclose()

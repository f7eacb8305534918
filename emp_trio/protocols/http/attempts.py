"""One call as an operation: its time, its tries, how far each got, and the words for its errors."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import trio

from emp_trio.errors import ServiceError
from emp_trio.protocols.http.request import Call, Sending
from emp_trio.protocols.urls import shown_url
from emp_trio.retry import RetryPolicy, next_wait
from emp_trio.secrets import Redactor, Secret, held

_LONGEST_TEXT: Final = 16 * 2**10  # characters of an error
_PHASES: Final = {
    "connect_tcp.started": "connecting",
    "start_tls.started": "in the TLS handshake",
    "send_request_headers.started": "sending the request",
    "receive_response_headers.started": "waiting for the answer",
    "receive_response_body.started": "reading the answer",
}


class RequestTrace:
    """How far one try has got: httpcore's trace says it.

    Attributes:
        phase: for messages.
        sent: the whole request has left this process, so the service may have started.
    """

    def __init__(self) -> None:
        self.phase = "waiting for a free connection"
        self.sent = False
        self._tunnel = False

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Called by httpcore with ``http11.send_request_body.complete`` and its like."""
        step = event.partition(".")[2]
        self.phase = _PHASES.get(step, self.phase)
        if step == "send_request_headers.started":
            self._tunnel = info["request"].method == b"CONNECT"  # spoken to the proxy, not to the service
        elif step == "send_request_body.complete" and not self._tunnel:
            self.sent = True


class RequestAttempts:
    """A call while it is being made.

    Args:
        call: what is sent in every try.
        seconds: for the whole operation.
        policy: how it is repeated.
        secrets: what must not be in texts about it; they are held while it lasts.
        own_account: it is made with the connector's own credentials.
        sending: is told how far it got.

    Attributes:
        request_id: the service's id of the latest try, once it has answered.
    """

    def __init__(
        self,
        call: Call,
        *,
        seconds: float,
        policy: RetryPolicy,
        secrets: Sequence[Secret],
        own_account: bool = True,
        sending: Sending | None = None,
    ) -> None:
        self.call = call
        self._sending = sending
        self.own_account = own_account
        self.request_id: str | None = None
        self.trace = RequestTrace()
        self.tried = 0
        self._seconds = seconds
        self._policy = policy
        self._secrets = tuple(secrets)
        self._redactor = Redactor(secrets)
        self._completed: ServiceError | None = None

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Bound the block by the operation's time. Raises ServiceError timeout/network_timeout."""
        try:
            with held(*self._secrets), trio.CancelScope(deadline=trio.current_time() + self._seconds) as scope:
                yield
        finally:
            if self._sending is not None:
                self._sending.may_have_run = self._may_have_run
        if scope.cancelled_caught:
            raise self.complete(
                ServiceError(
                    f"not finished within {self._seconds:.3g} s, ended while {self.trace.phase}",
                    type="timeout",
                    reason="network_timeout",
                    maybe_started=self._may_have_run,
                )
            )

    def begin_try(self) -> None:
        """Count a try and follow its trace."""
        self.tried += 1
        self.trace = RequestTrace()
        self.request_id = None
        self._completed = None

    @property
    def _may_have_run(self) -> bool:
        """Whether the latest try may have begun the work: its error says it, or else how far it got."""
        return self.trace.sent if self._completed is None else self._completed.maybe_started

    def complete(self, error: ServiceError) -> ServiceError:
        """Put into ``error`` what only the operation knows: method, URL, tries, the service's id of the call, whether
        the work may have started."""
        if error is not self._completed:
            self._completed = error
            error.request_id = error.request_id or self.request_id
            tries = f"after {self.tried} tries" if self.tried > 1 else ""
            request = f"request {error.request_id}" if error.request_id else ""
            notes = ", ".join(filter(None, (tries, request)))
            text = f"{self.call.method} {shown_url(self.call.url)}: {error.message}" + (f" ({notes})" if notes else "")
            error.message = self._redactor.excerpt(text, _LONGEST_TEXT)
            error.args = (error.message,)
            error.maybe_started = error.maybe_started and not self.call.idempotent
        return error

    def wait_after(self, error: ServiceError) -> float | None:
        """Seconds before the next try, or None where there must be none."""
        if error.maybe_started:
            return None
        return next_wait(
            self._policy,
            tried=self.tried,
            failure=error.failure,
            left=trio.current_effective_deadline() - trio.current_time(),
            random=random.random(),
        )

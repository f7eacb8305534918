"""Faults of the network below HTTP and WebSocket, in the fleet's words. Pure."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

from emp_trio.errors import ServiceError
from emp_trio.secrets import excerpt


def network_fault(error: BaseException, phase: str, *, sent: bool) -> ServiceError:
    """The error for a connection that failed or was lost.

    Args:
        error: with the causes it carries.
        phase: what was being done ("connecting").
        sent: the whole request had left, so the service may have started, and TLS was up.
    """
    causes = list(_causes(error))
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    system = next((cause for cause in reversed(causes) if isinstance(cause, OSError) and cause.strerror), None)
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        reason, text = "dns_resolution", "the name of the host can't be resolved"
    elif tls is not None and not sent:
        why = getattr(tls, "verify_message", "") or tls.reason or "the handshake failed"
        reason, text = "ssl_certificate", f"TLS failed: {why}"
    else:
        why = system.strerror if system is not None else str(error)
        reason, text = (
            "connection_failed",
            f"no connection, or it was lost, while {phase}" + (f": {why}" if why else ""),
        )
    return ServiceError(excerpt(text, 400), type="network_error", reason=reason, retry=True, maybe_started=sent)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it, and so on, into exception groups."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                yield from _causes(inner)
        error = error.__cause__ or error.__context__

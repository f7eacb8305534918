"""``HttpHooks``: what a connector may say about its calls, each with what holds where it says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emp_trio.errors import ServiceError
from emp_trio.protocols.auth import Auth, NoAuth
from emp_trio.protocols.http.errors import describe_status


class HttpHooks:
    """Asked by an ``HttpClient``; a connector that lists ``Http`` overrides what its service does differently."""

    def auth(self) -> Auth:
        """Hook: the connector's credentials. They never follow a redirect to another host."""
        return NoAuth()

    def describe_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
        """Hook: the error for an answer that is not a 2xx.

        Args:
            status: HTTP status.
            headers: names in lower case.
            body: its beginning, up to 64 KiB.

        Returns:
            the error. What it leaves open of ``retry_after``, ``request_id`` and ``maybe_started`` is filled in, method
            and URL are put before its text, and the connector's secrets are taken out of it.
        """
        return describe_status(status, headers, body)

    def error_in(self, value: Any) -> ServiceError | None:
        """Hook: the error that a JSON answer with a good status is after all, as some gateways send it; else None.

        It is completed as that of :meth:`describe_error` is.
        """
        return None

    def answered(self, headers: Mapping[str, str]) -> None:
        """Hook: the headers (names in lower case) of every 2xx answer that the connector's own account has got."""

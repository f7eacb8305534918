"""Translate HTTP error responses: text of the body, and statuses that mean the work was not started. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from emp_trio.errors import ServiceError
from emp_trio.protocols.wire_json import decode_json
from emp_trio.secrets import excerpt

LONGEST_TEXT: Final = 400


def describe_status(status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
    """The error for an error status whose body has no documented form.

    Args:
        status: HTTP status.
        headers: in lower case.
        body: searched for ``error.message``, ``error``, ``message`` or ``detail`` if it is JSON; else quoted.
    """
    try:
        word = HTTPStatus(status).phrase
    except ValueError:
        word = "unknown status"
    text, code = _said(body)
    if "html" in headers.get("content-type", "") or text.startswith("<"):
        text = "an HTML page"
    text = f"the service answered {status} {word}" + (f": {text}" if text else "")
    return ServiceError(excerpt(text, LONGEST_TEXT), status=status, code=code)


def _said(body: bytes) -> tuple[str, str | None]:
    """Message and code in an error body."""
    try:
        return _said_in(decode_json(body))
    except (ServiceError, RecursionError):  # showing it may go too deep as well
        return " ".join(excerpt(body.decode("utf-8", "replace"), 4 * LONGEST_TEXT).split()), None


def _said_in(data: Any) -> tuple[str, str | None]:
    error = data.get("error", data) if isinstance(data, dict) else data
    if not isinstance(error, dict):
        return str(error), None
    code = error.get("code")
    text = next((error[k] for k in ("message", "detail", "msg") if error.get(k)), None)
    return str(text if text is not None else error), None if code is None else str(code)


def may_have_started(status: int) -> bool:
    """Whether work may be under way (and billed) after this status (OpenAI reference 3.5).

    408, 409, 429, 503 and the other client errors say that the request was not taken up.
    """
    return status >= 500 and status != 503


def bad_answer(text: str, *, reason: str, retry: bool = True) -> ServiceError:
    """The error for an answer that came, but can't be used: the service has done its work."""
    return ServiceError(
        excerpt(text, LONGEST_TEXT), type="response_error", reason=reason, retry=retry, maybe_started=True
    )

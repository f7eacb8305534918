"""Find the error in a JSON response of OpenAI, or of compatible servers and gateways. Pure.

They come with an error status, with 200, and in streams (real servers, section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from emp_trio.errors import ServiceError
from emp_trio.protocols.decoders import SseEvent
from emp_trio.protocols.wire_json import excerpt
from emp_trio.secrets import one_line
from emp_trio.services.redaction import excerpt_of

_RESULTS: Final = ("choices", "output", "data", "candidates", "response")
_WORDS: Final = ("message", "detail", "msg", "error_description", "error_message", "error_msg", "reason", "title")
_LONGEST_WORDS: Final = 4000
_LONGEST_CODE: Final = 200
_QUOTED: Final = 1000
_CODES: Final = ("code", "error_code", "status_code", "status")


def error_in(value: Any) -> Mapping[str, Any] | None:
    """The error object of an answer or an event that is nothing but an error; None where it is something else.

    Known are ``{"error": {...}}`` and ``{"error": "text"}``, ``{"object": "error"}`` and ``{"type": "error"}`` with the
    members beside them, ``{"detail": ...}``, ``{"message": ..., "code": ...}``, ``{"errors": [...]}``, and a list of
    one of them. A value that has results is no error whatever else it has.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict) or any(value.get(name) for name in _RESULTS):
        return None
    if value.get("object") == "response" or str(value.get("type")).startswith("response."):
        return None
    if value.get("id") and isinstance(value.get("status"), str):  # a response all the same, with its own error
        return None
    return _error_object(value)


def stated_error(value: Any) -> Mapping[str, Any] | None:
    """The ``error`` that a value names beside whatever else it has, or None."""
    if not isinstance(value, dict) or not value.get("error"):
        return None
    return _error_object(
        {"error": value["error"]} | {name: value[name] for name in ("message", "code") if name in value}
    )


def _error_object(value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    error = value.get("error")
    if isinstance(error, dict) and error:
        return error
    beside = {name: member for name, member in value.items() if name not in ("error", "object", "errors")}
    if isinstance(error, str) and error:
        return beside | {
            "message": f"{error}: {beside['message']}" if isinstance(beside.get("message"), str) else error
        }
    if error:  # true, a number, a list
        return beside if words_of(beside) else beside | {"message": error}
    if value.get("object") == "error" or value.get("type") == "error":
        return {name: member for name, member in beside.items() if (name, member) != ("type", "error")}
    errors = value.get("errors")
    if isinstance(errors, list) and errors:
        return errors[0] if isinstance(errors[0], dict) else {"message": errors[0]}
    told = any(value.get(name) for name in ("message", "msg")) and any(value.get(name) for name in (*_CODES, "type"))
    return beside if value.get("detail") or told else None


def event_value(event: SseEvent, *, keep_halves: bool = False) -> Any:
    """The JSON of an event of a stream. What an event named ``error`` says is an error in whichever shape it comes,
    also as plain text: :func:`error_in` knows what is returned for it.

    Raises:
        ServiceError: response_error; it is not JSON.
    """
    if event.event not in ("error", "response.error"):
        return event.json(keep_halves=keep_halves)
    try:
        value = event.json(keep_halves=keep_halves)
    except ServiceError:
        value = event.data
    if error_in(value) is not None or (isinstance(value, dict) and value.get("type") in ("error", "response.error")):
        return value
    return {"error": value or "no reason given"}


def words_of(error: Mapping[str, Any]) -> str:
    """The words of an error, on one line; what is no text is quoted. Empty where there are none."""
    said = next((error[name] for name in _WORDS if error.get(name)), None)
    if said is None:
        return ""
    if isinstance(said, dict):
        said = next((said[name] for name in _WORDS if isinstance(said.get(name), str) and said[name]), said)
    return one_line(said, _LONGEST_WORDS) if isinstance(said, str) else quoted(said)


def quoted(value: Any) -> str:
    """The beginning of a value, on one line."""
    return excerpt(excerpt_of(value, _QUOTED))


def code_of(error: Mapping[str, Any]) -> str | None:
    """The code of an error, as a text."""
    code = error.get("code")
    said = isinstance(code, str | int) and not isinstance(code, bool) and code != ""
    return one_line(str(code), _LONGEST_CODE) if said else None


def status_of(error: Mapping[str, Any]) -> int | None:
    """The HTTP status that an error gives as its code, or None."""
    for name in _CODES:
        code = error.get(name)
        if isinstance(code, str) and code.isascii() and code.isdigit():
            code = int(code[:9])
        if isinstance(code, int) and not isinstance(code, bool) and 400 <= code <= 599:
            return code
    return None

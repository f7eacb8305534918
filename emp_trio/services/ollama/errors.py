"""Error answers of Ollama, and error lines in its streams, as errors of ours (Ollama reference B5). Pure.

An error is ``{"error": "text"}`` and no more: where the status says too little, only the words can tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.failures import FailureType
from emp_trio.protocols.http.errors import describe_status
from emp_trio.protocols.parsing import parse_or_empty
from emp_trio.protocols.wire_json import decode_json
from emp_trio.secrets import one_line
from emp_trio.services.redaction import excerpt_of

MISSING_MODEL: Final = "model_missing"
CONTEXT_LENGTH: Final = "context_length_exceeded"

_LONGEST: Final = 500
_ABOUT_MODELS: Final = re.compile(r"(?i)model|pull|manifest")


class _Body(msgspec.Struct, frozen=True):
    error: Any = None


class _Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A known text: what it means, whether another attempt can succeed, and what to do."""

    words: str
    type: FailureType
    reason: str
    retry: bool
    advice: str
    code: str | None = None


_KINDS: Final = (
    _Kind(
        words=r"context (length|window|size)|prompt too long",
        type="validation_error",
        reason="invalid_payload",
        retry=False,
        code=CONTEXT_LENGTH,
        advice="shorten the input, raise context_length (num_ctx) as far as the model goes, or leave truncate on",
    ),
    _Kind(
        words=r"more system memory|not enough memory|cannot allocate",
        type="resource_limit",
        reason="out_of_memory",
        retry=True,
        advice="the server has no room for the model now: use a smaller one, or let fewer be loaded at once",
    ),
    _Kind(
        words=r"out of memory",
        type="resource_limit",
        reason="gpu_memory_full",
        retry=True,
        advice="the GPU has no room for the model now: use a smaller one or a smaller context_length",
    ),
    _Kind(
        words=r"no space left",
        type="resource_limit",
        reason="disk_space_full",
        retry=True,
        advice="make room on the disk of the Ollama server",
    ),
    _Kind(
        words=r"does not support",
        type="validation_error",
        reason="unsupported_operation",
        retry=False,
        advice="take a model that can do it; `ollama show` lists what each can do",
    ),
    _Kind(
        words=r"pull model manifest: file does not exist",
        type="validation_error",
        reason="model_not_found",
        retry=False,
        code=MISSING_MODEL,
        advice="the model library has no model of that name; look at its spelling",
    ),
)
_PATTERNS: Final = tuple((re.compile(kind.words, re.IGNORECASE), kind) for kind in _KINDS)


def describe_error(status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
    """The error for an HTTP error answer.

    Args:
        status: HTTP status.
        headers: in lower case.
        body: JSON in the documented shape, or anything a proxy says.
    """
    text = _said(body)
    if text is None:
        error = describe_status(status, headers, body)
        if status == 404:
            error.message += " (is this an Ollama server? look at OLLAMA_BASE_URL)"
        return error
    message = f"Ollama answered {status}: {text}"
    if status == 404 and not _ABOUT_MODELS.search(text):  # about the path: there is nothing to pull
        return ServiceError(f"{message} (is this an Ollama server? look at OLLAMA_BASE_URL)", status=status)
    if status == 404:
        return ServiceError(
            f"{message} (install the model with `ollama pull`, or add it to OLLAMA_AUTO_PULL)",
            status=status,
            code=MISSING_MODEL,
            type="validation_error",
            reason="model_not_found",
            retry=False,
        )
    if status in (401, 403):
        return ServiceError(
            f"{message} (set OLLAMA_API_KEY, or run `ollama signin` on the server)", status=status, retry=False
        )
    return _known(text, message, status) or ServiceError(message, status=status)


def error_line(line: Mapping[str, Any]) -> ServiceError:
    """The error for an ``{"error": ...}`` line in a stream that began with a 200 (Ollama reference B3)."""
    text = _words(line.get("error"))
    message = f"Ollama failed in the middle of its answer: {text}"
    error = _known(text, message, None) or ServiceError(message)
    error.maybe_started = True
    return error


def is_missing_model(error: ServiceError) -> bool:
    """Whether the server lacks the model, so that a pull may help."""
    return error.status == 404 and error.code == MISSING_MODEL


def _known(text: str, message: str, status: int | None) -> ServiceError | None:
    for pattern, kind in _PATTERNS:
        if pattern.search(text):
            return ServiceError(
                f"{message} ({kind.advice})",
                status=status,
                code=kind.code,
                type=kind.type,
                reason=kind.reason,
                retry=kind.retry,
            )
    return None


def _said(body: bytes) -> str | None:
    """The text of an error body in the documented shape, or None."""
    try:
        error = parse_or_empty(_Body, decode_json(body)).error
    except ServiceError:
        return None
    return _words(error) if error else None


def _words(error: Any) -> str:
    if isinstance(error, dict):  # as the OpenAI-like layer says it
        error = error.get("message") or error
    said = error or "no reason given"
    return one_line(said if isinstance(said, str) else excerpt_of(said, 2 * _LONGEST), _LONGEST)

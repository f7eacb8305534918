"""Error answers of A1111 as errors of ours (A1111 reference 10.5). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.failures import FailureType
from emp_trio.protocols.http.errors import describe_status
from emp_trio.protocols.parsing import Lenient, parse
from emp_trio.protocols.wire_json import decode_json
from emp_trio.secrets import excerpt

_LONGEST: Final = 300
_Kind = tuple[FailureType, str, bool]  # type, reason, retry

_OUT_OF_MEMORY: Final[_Kind] = ("resource_limit", "gpu_memory_full", True)
_BY_WORDS: Final[tuple[tuple[str, _Kind], ...]] = (
    ("out of memory", _OUT_OF_MEMORY),
    ("invalid encoded image", ("validation_error", "invalid_format", False)),
    ("init image not found", ("validation_error", "missing_required_field", False)),
    ("not found", ("validation_error", "component_error", False)),  # a sampler, a script
)


class _Wrong(msgspec.Struct, frozen=True):
    """What is wrong with one parameter."""

    loc: Lenient[list[Any]] = []
    msg: Any = "is wrong"

    @property
    def place(self) -> str:
        """Where in the request that is, as ``override_settings.sd_vae``."""
        return ".".join(str(step) for step in self.loc if step != "body")


class _ErrorBody(msgspec.Struct, frozen=True):
    """An error of the web UI, which has all members, or of the library beneath it, which has only ``detail``."""

    detail: list[Lenient[_Wrong]] | dict[str, Any] | str | bool | int | float | None
    error: Lenient[str] = ""
    errors: Any = msgspec.UNSET


def describe_error(status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
    """The error for an HTTP error answer: A1111's own, or that of whatever stands in front of it.

    Args:
        status: HTTP status.
        headers: in lower case.
        body: JSON in one of the documented forms, or anything a proxy says.
    """
    said = _said(body)
    if said is None:
        return describe_status(status, headers, body)
    code, text, param = said
    message = f"A1111 answered {status}: {text}"
    if status in (401, 403):
        return ServiceError(f"{message} (set A1111_USERNAME and A1111_PASSWORD)", status=status, code=code, retry=False)
    if status == 404 and code is None:
        return ServiceError(
            f"{message} (there is no such route: start the web UI with --api, or update it)",
            status=status,
            type="system_error",
            reason="config_error",
        )
    kind = _kind(status, code or "", text)
    if kind is None:
        return ServiceError(message, status=status, code=code, param=param)
    return ServiceError(message, status=status, code=code, param=param, type=kind[0], reason=kind[1], retry=kind[2])


def is_out_of_memory(error: ServiceError) -> bool:
    """Whether the generation has ended for want of memory, which may be free elsewhere or later."""
    return error.reason == _OUT_OF_MEMORY[1]


def interrupted() -> ServiceError:
    """The error for a generation that somebody else has interrupted: what came of it is half an image."""
    return ServiceError(
        "the generation was interrupted in A1111 by somebody else",
        code="interrupted",
        type="service_error",
        reason="service_unavailable",
        retry=True,
        maybe_started=True,
    )


def login_page(error: ServiceError) -> ServiceError | None:
    """What it means that a page or a redirect came instead of data (A1111 reference 7), or None for any other error."""
    redirected = error.reason == "config_error" and 300 <= (error.status or 0) < 400
    if error.reason != "unexpected_content_type" and not redirected:
        return None
    return ServiceError(
        f"{error.message} (a login page stands in front of A1111: give the connector its credentials)",
        status=error.status,
        type="auth_error",
        reason="insufficient_permissions",
        retry=False,
    )


def _kind(status: int, code: str, text: str) -> _Kind | None:
    """What is known of an error beyond its status."""
    if code.endswith("OutOfMemoryError"):
        return _OUT_OF_MEMORY
    if status not in (400, 404, 422, 500):
        return None
    return next((kind for words, kind in _BY_WORDS if words in text.lower()), None)


def _said(body: bytes) -> tuple[str | None, str, str | None] | None:
    """(class of the error, text, parameter) in a documented body; None for any other."""
    try:
        said = parse(_ErrorBody, decode_json(body), "an error")
    except ServiceError:
        return None  # the status says enough
    code = said.error or None if said.errors is not msgspec.UNSET else None
    if isinstance(said.detail, list):
        texts = [f"{wrong.place}: {wrong.msg}" for wrong in said.detail]
        return (
            code,
            excerpt("; ".join(texts), _LONGEST) or "the request is wrong",
            (said.detail[0].place if said.detail else None),
        )
    first = next(
        (text for text in (said.detail, said.errors, said.error) if isinstance(text, str) and text), "no reason"
    )
    return code, excerpt(" ".join(first.split()), _LONGEST), None

"""A job as the call that hands it to the service. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args
from urllib.parse import quote, unquote

import msgspec

from emp_trio.errors import InvalidJob
from emp_trio.jobs import Job
from emp_trio.protocols.http_call import CallOptions
from emp_trio.services.rest.settings import CallSettings, Method, fits_header
from emp_trio.services.rest.templates import fill

_METHODS: Final = get_args(Method)
_OURS: Final = frozenset(  # what would change whose call it is, or how it is read
    "authorization proxy-authorization cookie host connection content-length transfer-encoding te trailer upgrade "
    "expect keep-alive accept-encoding".split()
)


class RestCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that is ready to be made; ``body`` is None for a call without one."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any

    @property
    def repeatable(self) -> bool:
        """Whether the service may get the call twice without doing the work twice."""
        return self.method in ("GET", "PUT")

    def options(self) -> CallOptions:
        """Body, query and headers for ``Http.request``."""
        if self.method == "GET":
            return {"headers": self.headers, "params": self.body}
        return {"headers": self.headers, "json": self.body}


def rest_call(job: Job, settings: CallSettings, *, key_header: str = "") -> RestCall:
    """The call for a job.

    Args:
        settings: what to call, and the template of the body.
        key_header: the header of the API key, which no payload may set.

    Raises:
        InvalidJob: the payload lacks something, or asks for a call that it must not make.
    """
    payload = {name: value for name, value in job.payload.items() if name != "ctx"}  # storage and its credentials
    if settings.payload_calls:
        return _asked_for(payload, settings, _OURS | {key_header.lower()})
    body = payload if settings.body is None else fill(settings.body, job, payload)
    if settings.method == "GET":
        body = _query(body)
    return RestCall(method=settings.method, path=settings.path, headers=settings.headers, body=body)


def with_id(path: str, work: str) -> str:
    """``path`` with the id of work for ``{id}``, or at its end; whatever is in the id, it stays one segment."""
    template = path if "{id}" in path else path.rstrip("/") + "/{id}"
    return template.replace("{id}", quote(work, safe=""))


def _asked_for(payload: dict[str, Any], settings: CallSettings, kept: frozenset[str]) -> RestCall:
    """The call that a payload describes (connector reference 2.4)."""
    method = payload.get("method") or settings.method
    if not isinstance(method, str) or method.upper() not in _METHODS:
        raise InvalidJob(f"payload.method must be one of {', '.join(_METHODS)}", reason="unsupported_operation")
    body = payload.get("data") if payload.get("data") is not None else payload.get("body")
    path = _path(payload.get("endpoint") or settings.path)
    headers = {**settings.headers, **_headers(payload.get("headers") or {}, kept)}
    if method.upper() == "GET":
        body = _query({} if body is None else body)
    return RestCall(method=method.upper(), path=path, headers=headers, body=body)


def _path(path: Any) -> str:
    """``path`` if it leads to nothing but what is under the base URL."""
    if isinstance(path, str):
        segments = unquote(path.partition("?")[0]).split("/")
        plain = path.isascii() and path.isprintable() and not set(path) & set("\\#{} ")
        if plain and path.startswith("/") and not path.startswith("//") and not {".", ".."} & set(segments):
            return path
    raise InvalidJob(
        "payload.endpoint must be a path that begins with one slash, without . and .. in it: the host is the worker's",
        reason="unsupported_operation",
    )


def _headers(headers: Any, kept: frozenset[str]) -> dict[str, str]:
    if not isinstance(headers, dict):
        raise InvalidJob("payload.headers must be an object", reason="invalid_format")
    for name, value in headers.items():
        if not fits_header(name, value):
            raise InvalidJob(f"payload.headers: {name[:80]!r} can't be sent", reason="invalid_format")
        if name.lower() in kept:
            raise InvalidJob(f"payload.headers: {name!r} is not for a job to set", reason="unsupported_operation")
    return headers


def _query(body: Any) -> dict[str, Any]:
    """The body of a GET as its query: an object of single values and lists of them."""
    if not isinstance(body, dict):
        raise InvalidJob("a call with the method GET takes an object only", reason="invalid_format")
    for name, value in body.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict | list):
                raise InvalidJob(f"{name[:80]!r} is nested, which a query can't be", reason="invalid_format")
    return body

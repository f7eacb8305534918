"""A job as the call that hands it to the service. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, get_args
from urllib.parse import parse_qsl, unquote

import msgspec

from emp_trio.errors import InvalidJob
from emp_trio.jobs import Job, not_an_object
from emp_trio.protocols.http.paths import plain_path, segment
from emp_trio.protocols.http.request import CallOptions
from emp_trio.secrets import excerpt
from emp_trio.secrets.names import is_secret_name
from emp_trio.services.rest.settings import CallSettings, Method, fits_header
from emp_trio.services.rest.templates import fill

_METHODS: Final = get_args(Method)
_OURS: Final = frozenset(  # what would change whose call it is, or how it is read
    "authorization cookie cookie2 host connection content-length transfer-encoding te trailer upgrade expect "
    "keep-alive accept-encoding http2-settings forwarded via max-forwards x-real-ip x-client-ip true-client-ip "
    "origin referer set-cookie content-encoding content-location link x-wap-profile x-sendfile "
    "x-middleware-subrequest front-end-https".split()
)
_OUR_WORDS: Final = frozenset(  # in a header that gateways take for the method, the place, or the caller of a call
    "method methodoverride verb url uri destination destinationurl host ip user username principal cert jwt oidc "
    "identity impersonate".split()
)
_NOT_OURS: Final = frozenset(["user-agent", "x-request-id"])
_OURS_BEGIN: Final = ("proxy-", "x-forwarded", "x-original-", "x-rewrite-", "x-envoy-", "x-accel-", "cf-", "sec-")
_JSON: Final = re.compile(r"application/([a-z0-9.+-]+\+)?json(\s*;\s*charset=\"?utf-8\"?)?\s*", re.IGNORECASE)
_OVERRIDES: Final = re.compile(r"(x-?)?(http-?)?(method|verb)(-?override)?")  # with the method in another place


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
    payload = job.sent_payload  # without storage and its credentials
    if settings.payload_calls:
        if not isinstance(payload, dict):
            raise InvalidJob(not_an_object("payload", payload), reason="invalid_format")
        return _asked_for(payload, settings, {_dashed(name) for name in (key_header, *settings.headers)})
    body = payload if settings.body is None else fill(settings.body, job, payload)
    if settings.method == "GET":
        body = _query(body)
    return RestCall(method=settings.method, path=settings.path, headers=settings.headers, body=body)


def with_id(path: str, work: str) -> str:
    """``path`` with the id of work for ``{id}``, or at its end; whatever is in the id, it stays one segment."""
    template = path if "{id}" in path else path.rstrip("/") + "/{id}"
    return template.replace("{id}", segment(work))


def _asked_for(payload: dict[str, Any], settings: CallSettings, kept: set[str]) -> RestCall:
    """The call that a payload describes (connector reference 2.4)."""
    method = payload.get("method") or settings.method
    if not isinstance(method, str) or method.upper() not in _METHODS:
        raise InvalidJob(f"payload.method must be one of {', '.join(_METHODS)}", reason="unsupported_operation")
    body = payload.get("data") if payload.get("data") is not None else payload.get("body")
    path = _path(payload.get("endpoint") or settings.path)
    headers = {**settings.headers, **_headers(payload.get("headers") or {}, kept)}
    if method.upper() == "GET":
        body = _query({} if body is None else body)
    _check_override(path, body)
    return RestCall(method=method.upper(), path=path, headers=headers, body=body)


def _path(path: Any) -> str:
    """``path`` in its plain form, if it leads to nothing but what is under the base URL."""
    try:
        if not isinstance(path, str):
            raise ValueError("be a text")
        return plain_path(path)
    except ValueError as error:
        raise InvalidJob(
            f"payload.endpoint must {error}: it is a path under the worker's own base URL, and stays there",
            reason="unsupported_operation",
        ) from None


def _check_override(path: str, body: Any) -> None:
    """Refuse a method in another place: many frameworks take ``_method=DELETE`` of a query or body for the method."""
    names = [name for name, _ in parse_qsl(path.partition("?")[2], keep_blank_values=True, separator="&")]
    names += [name for piece in path.partition("?")[2].split(";")[1:] for name, _ in parse_qsl(piece, True)]
    names += [name for item in (body if isinstance(body, list) else [body]) if isinstance(item, dict) for name in item]
    for name in names:
        if _overrides(name):
            raise InvalidJob(
                f"{excerpt(name, 80)!r} names another method: use payload.method", reason="unsupported_operation"
            )


def _overrides(name: str) -> bool:
    plain = _dashed(unquote(name)).strip()
    return plain.startswith(("-method", "-verb")) or (
        plain not in ("method", "verb") and _OVERRIDES.fullmatch(plain.strip("-")) is not None
    )


def _dashed(name: str) -> str:
    """A name as servers compare it: CGI and WSGI make ``_`` of ``-``."""
    return name.lower().replace("_", "-")


def _headers(headers: Any, kept: set[str]) -> dict[str, str]:
    if not isinstance(headers, dict):
        raise InvalidJob("payload.headers must be an object", reason="invalid_format")
    for name, value in headers.items():
        if not fits_header(name, value):
            raise InvalidJob(f"payload.headers: {excerpt(name, 80)!r} can't be sent", reason="invalid_format")
        plain = _dashed(name)
        if plain in kept or _is_ours(name):
            raise InvalidJob(f"payload.headers: {name!r} is not for a job to set", reason="unsupported_operation")
        if plain == "content-type" and not _JSON.fullmatch(value):
            raise InvalidJob("payload.headers: the body is sent as JSON", reason="unsupported_operation")
    return headers


def _is_ours(name: str) -> bool:
    plain = _dashed(name)
    if plain in _OURS or plain.startswith(_OURS_BEGIN) or "method" in plain or is_secret_name(name):
        return True
    return plain not in _NOT_OURS and not _OUR_WORDS.isdisjoint(re.split(r"[^a-z0-9]+", plain))


def _query(body: Any) -> dict[str, Any]:
    """The body of a GET as its query: an object of single values and lists of them."""
    if not isinstance(body, dict):
        raise InvalidJob("a call with the method GET takes an object only", reason="invalid_format")
    for name, value in body.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict | list):
                raise InvalidJob(f"{excerpt(name, 80)!r} is nested, which a query can't be", reason="invalid_format")
    return body

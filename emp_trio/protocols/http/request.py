"""A call before it is sent: what a connector may say about it, and the request that becomes of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypedDict

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.protocols.auth import Auth, auth_headers
from emp_trio.protocols.http.paths import climbs
from emp_trio.protocols.urls import join_url, origin

IDEMPOTENT_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


class Sending:
    """How far a call has got, for who must know it also when the call is cancelled.

    Attributes:
        may_have_run: whether the service may have begun the work. True until the call says otherwise.
    """

    def __init__(self) -> None:
        self.may_have_run = True


class CallOptions(TypedDict, total=False):
    """What may be said of a call of :class:`~emp_trio.protocols.http.Http`, each by name.

    Attributes:
        json: body, encoded as JSON.
        content: body as it is; say its content-type in ``headers``.
        headers: further headers. They stay on the origin of ``base_url``, as the credentials do.
        params: added to the query; None values are left out.
        idempotent: whether the call may be made twice; by default it may for GET, HEAD, OPTIONS, PUT and DELETE. Say it
            of a POST that cancels.
        timeout: seconds for the whole operation, instead of the settings'.
        read_timeout: seconds without a byte of the answer, instead of the settings'.
        retries: repeats after the first try, instead of the settings'. 0 inside a poll, which has its own patience.
        auth: credentials of another account for this call alone. Pauses and limits of the connector's own account are
            neither kept nor learned by it.
        sending: is told how far the call got.
        same_origin: a redirect to another origin is an error (:class:`LeftOrigin`), not followed.
    """

    json: Any
    content: bytes | None
    headers: Mapping[str, str] | None
    params: Mapping[str, Any] | None
    idempotent: bool | None
    timeout: float | None
    read_timeout: float | None
    retries: int | None
    auth: Auth | None
    sending: Sending | None
    same_origin: bool


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A request, the same in every try.

    ``credentials`` go only to the origin of ``base_url``, and so do the caller's ``headers``; ``accept`` and
    ``content_type`` go wherever a redirect leads.
    """

    method: str
    url: str
    base_url: str
    accept: str
    content_type: str | None
    headers: Mapping[str, str]
    credentials: Mapping[str, str]
    content: bytes | None
    idempotent: bool
    read_timeout: float | None = None
    same_origin: bool = False


class LeftOrigin(ServiceError):
    """A call that must stay on the origin of ``base_url`` was redirected to another: ``location``, which the text does
    not say."""

    default_type = "system_error"
    default_reason = "config_error"
    default_retry = False

    def __init__(self, message: str, *, location: str) -> None:
        super().__init__(message)
        self.location = location


def make_call(method: str, path: str, *, base_url: str, auth: Auth, accept: str, options: CallOptions) -> Call:
    """The request for ``path`` under ``base_url``.

    Raises:
        ConfigError: a credential that can't stand in a header.
        TypeError: both ``json`` and ``content``, or a ``json`` that can't be encoded.
        ValueError: a URL that can't be read, or a path that leads out of ``base_url`` where it is decoded once more.
    """
    method = method.upper()
    headers = {name.lower(): value for name, value in (options.get("headers") or {}).items()}
    content, value = options.get("content"), options.get("json")
    if content is not None and value is not None:
        raise TypeError("a call has either json or content")
    content_type = headers.pop("content-type", None)
    if value is not None:
        content, content_type = msgspec.json.encode(value), content_type or "application/json"
    idempotent = options.get("idempotent")
    if not path.lower().startswith(("http://", "https://")) and climbs(path):
        raise ValueError("a path with a dot segment")
    url = join_url(base_url, path, options.get("params"))
    origin(url)
    return Call(
        method=method,
        url=url,
        base_url=base_url,
        accept=headers.pop("accept", accept),
        content_type=content_type,
        headers=headers,
        credentials=auth_headers(auth),
        content=content,
        idempotent=method in IDEMPOTENT_METHODS if idempotent is None else idempotent,
        read_timeout=options.get("read_timeout"),
        same_origin=options.get("same_origin", False),
    )

"""URLs of calls: joining, origins, redirects, and how a URL is shown. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def join_url(base: str, path: str, params: Mapping[str, Any] | None = None) -> str:
    """``path`` under ``base``: no segment is added or taken away, one slash stands between them.

    Args:
        base: base URL; a query of its own (``?api-version=1``) is kept.
        path: path with an optional query, or an absolute http(s) URL, which is used as it is.
        params: added to the query; None is left out, booleans are ``true`` and ``false``, lists repeat the name.

    Raises:
        ValueError: a URL that can't be read.
    """
    if path.lower().startswith(("http://", "https://")):
        scheme, netloc, full, query, _ = urlsplit(path)
    else:
        scheme, netloc, full, query, _ = urlsplit(base)
        given, _, given_query = path.partition("?")
        if given:
            full = f"{full.removesuffix('/')}/{given.removeprefix('/')}"
        query = "&".join(q for q in (query, given_query) if q)
    pairs = [(name, _text(v)) for name, value in (params or {}).items() for v in _values(value)]
    return urlunsplit((scheme, netloc, full, "&".join(q for q in (query, urlencode(pairs)) if q), ""))


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an absolute URL.

    Raises:
        ValueError: not an absolute URL of http, https, ws or wss.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"{shown_url(url)} is not an absolute URL of {', '.join(_PORTS)}")
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]


def keeps_credentials(base: str, url: str) -> bool:
    """Whether credentials meant for ``base`` may go to ``url``: its own origin, or the same host raised to TLS."""
    own, other = origin(base), origin(url)
    return own == other or (own[1] == other[1] and (own[0], own[2]) == ("http", 80) and other[0::2] == ("https", 443))


def redirected(method: str, url: str, *, status: int, location: str) -> tuple[str, str] | None:
    """Method and URL of the call that a redirect asks for, or None where it must not be followed.

    A method other than GET and HEAD is kept by 307 and 308 and becomes GET by 303; what 301 and 302 mean for it is
    ambiguous. From TLS to plain HTTP nothing follows.

    Raises:
        ValueError: a location that can't be read.
    """
    target = urljoin(url, location)
    if origin(target)[0] not in ("https", origin(url)[0]):
        return None
    if status == 303 and method != "HEAD":
        return "GET", target
    if method in ("GET", "HEAD") or status in (307, 308):
        return method, target
    return None


def shown_url(url: str) -> str:
    """``url`` for messages: without user, password, query and fragment, where secrets are kept."""
    try:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        return urlunsplit((parts.scheme, f"{host}:{parts.port}" if parts.port else host, parts.path, "", ""))
    except ValueError:
        return "an unreadable URL"


def _values(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

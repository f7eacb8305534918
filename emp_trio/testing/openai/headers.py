"""Headers of requests and answers (OpenAI reference 2). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

_DOCUMENTED: Final = frozenset(
    "authorization content-type accept openai-organization openai-project x-client-request-id user-agent".split()
)
_OF_HTTP: Final = frozenset("host connection content-length transfer-encoding accept-encoding expect".split())

ANSWER_HEADERS: Final = {
    "openai-processing-ms": "7",
    "openai-version": "2020-10-01",
    "openai-organization": "org-fake",
    "x-ratelimit-limit-requests": "500",
    "x-ratelimit-remaining-requests": "499",
    "x-ratelimit-reset-requests": "120ms",
    "x-ratelimit-limit-tokens": "30000",
    "x-ratelimit-remaining-tokens": "29000",
    "x-ratelimit-reset-tokens": "1s",
}


def header_violations(headers: Mapping[str, str], *, body: Any, streamed: bool, form: bool) -> Iterator[str]:
    """Whatever no reference documents in the headers of a request.

    Args:
        headers: with names in lower case.
        body: the request's, None where it has none.
        streamed: whether it asks for a stream.
        form: whether the route takes a form.
    """
    for name in headers.keys() - _DOCUMENTED - _OF_HTTP:
        yield f"undocumented header {name!r}"
    client_id = headers.get("x-client-request-id", "")
    if len(client_id) > 512 or not (client_id.isascii() and (client_id.isprintable())):
        yield "X-Client-Request-Id is not printable ASCII of at most 512 characters"
    types = ("application/json", "multipart/form-data") if form else ("application/json",)
    content_type = headers.get("content-type", "")
    if body is not None and not content_type.startswith(types):
        yield f"a body of content type {content_type!r}"
    accept = headers.get("accept", "*/*")
    wanted = "text/event-stream" if streamed else "application/json"
    if wanted not in accept and "*/*" not in accept:
        yield f"accept: {accept} where the answer is {wanted}"

"""Settings of a connector's HTTP client."""

from __future__ import annotations

from typing import Annotated

import msgspec

Seconds = Annotated[float, msgspec.Meta(gt=0)]


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a connector reaches its service. All times in seconds.

    Attributes:
        base_url: what paths are appended to, as it is.
        timeout: for a whole operation: every try, the waits between them, and the body.
        connect_timeout: for TCP and again for TLS.
        read_timeout: without a byte of the answer.
        write_timeout: without a byte of the request moving.
        max_retries: repeats after the first try.
        retry_delay: before the first repeat, doubled for each further one up to 8 s; a stated wait beats it.
        max_response_bytes: a larger body is an error.
        max_connections: at once; further calls wait within their timeout.
        keepalive_timeout: for which an idle connection is kept for the next call.
        verify_tls: False accepts any certificate.
    """

    base_url: str
    timeout: Seconds = 60.0
    connect_timeout: Seconds = 5.0
    read_timeout: Seconds = 30.0
    write_timeout: Seconds = 60.0
    max_retries: Annotated[int, msgspec.Meta(ge=0)] = 3
    retry_delay: Annotated[float, msgspec.Meta(ge=0)] = 0.5
    max_response_bytes: Annotated[int, msgspec.Meta(gt=0)] = 64 * 2**20
    max_connections: Annotated[int, msgspec.Meta(gt=0)] = 1000
    keepalive_timeout: Seconds = 5.0
    verify_tls: bool = True

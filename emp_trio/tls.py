"""TLS contexts for clients."""

from __future__ import annotations

import functools
import os
import ssl


def tls_context(*, verify: bool = True) -> ssl.SSLContext:
    """Return a client TLS context that trusts certifi's authorities, or those of SSL_CERT_FILE and SSL_CERT_DIR.

    The context is cached and shared: reading the authorities takes 30 ms.

    Args:
        verify: False accepts any certificate.
    """
    return _tls_context(verify, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@functools.lru_cache(maxsize=8)
def _tls_context(verify: bool, file: str | None, folder: str | None) -> ssl.SSLContext:
    import httpx  # reads these variables itself; imported late, because it would slow down --help

    context = httpx.create_ssl_context(verify=verify)
    context.set_alpn_protocols(["http/1.1"])
    return context

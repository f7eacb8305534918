"""TLS as a client: whom it trusts."""

from __future__ import annotations

import functools
import os
import ssl


def tls_context(*, verify: bool = True) -> ssl.SSLContext:
    """A client's TLS context with the usual authorities, or those of SSL_CERT_FILE and SSL_CERT_DIR.

    It is shared by all who ask for the same: reading the authorities takes 30 ms.

    Args:
        verify: False trusts any certificate.
    """
    return _tls_context(verify, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@functools.lru_cache(maxsize=8)
def _tls_context(verify: bool, file: str | None, folder: str | None) -> ssl.SSLContext:
    import httpx  # which looks at these variables itself, and costs more than all of --help may

    context = httpx.create_ssl_context(verify=verify)
    context.set_alpn_protocols(["http/1.1"])
    return context

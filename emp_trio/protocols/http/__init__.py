"""Calls to a service over HTTP: the client that a connector has, and what it takes and returns."""

from emp_trio.protocols.http.client import HttpClient, open_http_client
from emp_trio.protocols.http.errors import describe_status
from emp_trio.protocols.http.hooks import HttpHooks
from emp_trio.protocols.http.mixin import Http
from emp_trio.protocols.http.request import CallOptions
from emp_trio.protocols.http.response import HttpResponse, HttpStream
from emp_trio.protocols.http.settings import HttpSettings

__all__ = [
    "CallOptions",
    "Http",
    "HttpClient",
    "HttpHooks",
    "HttpResponse",
    "HttpSettings",
    "HttpStream",
    "describe_status",
    "open_http_client",
]

"""Calls to a service over HTTP: the client that a connector has, and what it takes and returns."""

from emp_trio.protocols.http.client import Http
from emp_trio.protocols.http.errors import describe_status
from emp_trio.protocols.http.request import CallOptions
from emp_trio.protocols.http.response import HttpResponse, HttpStream
from emp_trio.protocols.http.settings import HttpSettings

__all__ = ["CallOptions", "Http", "HttpResponse", "HttpSettings", "HttpStream", "describe_status"]

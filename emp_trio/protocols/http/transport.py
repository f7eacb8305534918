"""One try of an HTTP call: the only module that imports httpx, and where its errors become ours."""

from __future__ import annotations

import ssl
import urllib.request
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Final

import httpx
import trio

from emp_trio.errors import ServiceError
from emp_trio.failures import FailureType
from emp_trio.protocols.http.attempts import RequestTrace
from emp_trio.protocols.http.errors import bad_answer
from emp_trio.protocols.http.pool import Pool
from emp_trio.protocols.http.request import Call, LeftOrigin
from emp_trio.protocols.http.settings import HttpSettings
from emp_trio.protocols.network_errors import network_fault
from emp_trio.protocols.urls import keeps_credentials, redirected, shown_url
from emp_trio.secrets import excerpt, held
from emp_trio.secrets.credentials import address_secrets
from emp_trio.tls import tls_context

MAX_REDIRECTS: Final = 3

_PIECE: Final = 256 * 2**10
_GZIP: Final = 16 + zlib.MAX_WBITS

# How httpcore and h11 say that the peer closed too early; their other protocol errors mean garbage.
_CUT: Final = ("Server disconnected", "peer ")


class Reply:
    """A response whose body has not been read: ``status``, ``headers`` (lower case), and an iterator over the body."""

    def __init__(self, response: httpx.Response, trace: RequestTrace) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = dict(response.headers.items())
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._stream = response.stream
        self._pieces = response.stream.__aiter__()
        self._unzip = zlib.decompressobj(_GZIP) if self.headers.get("content-encoding") == "gzip" else None
        self._zipped = 0
        self._trace = trace

    def __aiter__(self) -> Reply:
        return self

    async def __anext__(self) -> bytes:
        """The next piece of the body, decompressed. Raises ServiceError where it breaks off."""
        try:
            if self._unzip is not None and self._unzip.unconsumed_tail:
                await trio.lowlevel.checkpoint()
                return self._unzipped(self._unzip, self._unzip.unconsumed_tail)
            with translated(self._trace):
                piece = await anext(self._pieces)
            if self._unzip is None:
                return piece
            self._zipped += len(piece)
            return self._unzipped(self._unzip, piece)
        except zlib.error as error:
            raise bad_answer(f"the body can't be decompressed: {error}", reason="corrupted_data") from error
        except StopAsyncIteration:
            if self._unzip is not None and self._zipped and not self._unzip.eof:
                raise bad_answer("the compressed body is not complete", reason="corrupted_data") from None
            raise

    def _unzipped(self, unzip: zlib._Decompress, piece: bytes) -> bytes:
        # A thousandth of it may be all there is on the wire: never more than a piece in memory at a time.
        data = unzip.decompress(piece, _PIECE)
        if unzip.unused_data:  # it would be gathered, whatever the limit of the body
            raise bad_answer("the body goes on after the end of what is compressed", reason="corrupted_data")
        return data

    async def aclose(self) -> None:
        """Give the connection back; one whose body was not read to its end is closed."""
        await self._stream.aclose()
        # httpx reads through a chain of async generators, and Trio complains of each that is dropped half-way. Now that
        # the socket is closed, reading on ends them all at once.
        with trio.CancelScope(shield=True), suppress(httpx.HTTPError, httpx.StreamError, OSError):
            async for _ in self._pieces:
                pass


class HttpTransport:
    """The HTTP pools of a connector; made by :func:`open_transport`. ``secrets`` are those of the proxies.

    It speaks to httpx's transports: the client above them would keep the cookies of one job for the next, log URLs with
    the secrets in their queries, and follow redirects with an API key.
    """

    def __init__(self, settings: HttpSettings, user_agent: str, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._transports: dict[tuple[str | None, bool], httpx.AsyncBaseTransport] = {}
        self._proxies = urllib.request.getproxies()
        self.secrets = [secret for url in self._proxies.values() for secret in address_secrets(url)]
        self._verify_tls = settings.verify_tls
        self._most, self._keep = settings.max_connections, settings.keepalive_timeout
        self._headers = {"user-agent": user_agent, "accept-encoding": "gzip"}
        self._timeouts = {
            "connect": settings.connect_timeout,
            "read": settings.read_timeout,
            "write": settings.write_timeout,
            "pool": None,
        }

    async def send(self, call: Call, trace: RequestTrace) -> Reply:
        """Send ``call`` once, following redirects.

        Raises:
            LeftOrigin: a redirect to another origin, where the call must stay on its own.
            ServiceError: no answer, or a redirect that can't be followed. ``maybe_started`` is set when the whole
                request had been sent.

        A cancel closes the connection in use; whether the service had started is then unknown.
        """
        method, url, content = call.method, call.url, call.content
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._send_once(call, trace, method=method, url=url, content=content)
            location = response.headers.get("location")
            if response.status_code not in (301, 302, 303, 307, 308) or location is None:
                return Reply(response, trace)
            await Reply(response, trace).aclose()
            try:
                following = redirected(method, url, status=response.status_code, location=location)
            except ValueError as error:
                raise _bad_redirect(response.status_code, f"to an unreadable place ({error})") from error
            if following is None:
                raise _bad_redirect(response.status_code, f"{method} to {shown_url(location)}: set base_url to where")
            if call.same_origin and not keeps_credentials(call.base_url, following[1]):
                text = f"the service answered {response.status_code}, a redirect to another host, which is not followed"
                raise LeftOrigin(text, location=following[1])
            if following[0] != method:
                content = None
            method, url = following
        raise _bad_redirect(response.status_code, f"more than {MAX_REDIRECTS} times, last to {shown_url(url)}")

    async def _send_once(
        self, call: Call, trace: RequestTrace, *, method: str, url: str, content: bytes | None
    ) -> httpx.Response:
        headers = self._headers | {"accept": call.accept}
        if call.content_type is not None and content is not None:
            headers["content-type"] = call.content_type
        if keeps_credentials(call.base_url, url):
            headers |= {**call.credentials, **call.headers}
        timeouts = self._timeouts if call.read_timeout is None else {**self._timeouts, "read": call.read_timeout}
        extensions = {"timeout": timeouts, "trace": trace.trace}
        with translated(trace):
            request = httpx.Request(method, url, headers=headers, content=content, extensions=extensions)
            if content is not None:
                request.stream = _Body(content)
            return await self._transport(request.url).handle_async_request(request)

    def _transport(self, url: httpx.URL) -> httpx.AsyncBaseTransport:
        """The pool for ``url``: one per proxy and one without, each with TLS or not."""
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        if proxy is not None and urllib.request.proxy_bypass(f"{url.host}:{url.port}" if url.port else url.host):
            proxy = None
        secure = url.scheme == "https" or (proxy or "").startswith("https")
        if (proxy, secure) not in self._transports:
            # Reading the authorities costs more than all of a plain connection; a context without any trusts nobody.
            tls = tls_context(verify=self._verify_tls) if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            transport = Pool(tls, most=self._most, keep=self._keep) if proxy is None else self._through(proxy, tls)
            self._transports[proxy, secure] = transport
            self._stack.push_async_callback(transport.aclose)
        return self._transports[proxy, secure]

    def _through(self, proxy: str, tls: ssl.SSLContext) -> httpx.AsyncHTTPTransport:
        """httpx's own transport, which speaks to proxies."""
        limits = httpx.Limits(
            max_connections=self._most, max_keepalive_connections=self._most, keepalive_expiry=self._keep
        )
        try:
            return httpx.AsyncHTTPTransport(verify=tls, limits=limits, proxy=proxy)
        except (ImportError, ValueError) as error:  # a kind of proxy that httpx has no support for
            raise ServiceError(
                f"the proxy of the environment can't be used: {error}",
                type="network_error",
                reason="proxy_error",
                retry=False,
            ) from error


class _Body(httpx.AsyncByteStream):
    """A request body in pieces, so that the write timeout counts from the last one.

    An iterator of its own because Trio complains of httpx's async generator when a send is cancelled.
    """

    def __init__(self, content: bytes) -> None:
        self._content = memoryview(content)
        self._position = 0

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        if self._position >= len(self._content):
            raise StopAsyncIteration
        piece = self._content[self._position : self._position + _PIECE]
        self._position += _PIECE
        return bytes(piece)


@asynccontextmanager
async def open_transport(settings: HttpSettings, user_agent: str) -> AsyncIterator[HttpTransport]:
    """A pool with the limits of ``settings``, closed at the end of the block.

    HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY of the environment are respected, and SSL_CERT_FILE. Passwords of
    proxies are held meanwhile.
    """
    async with AsyncExitStack() as stack:
        transport = HttpTransport(settings, user_agent, stack)
        with held(*transport.secrets):
            yield transport


@contextmanager
def translated(trace: RequestTrace) -> Iterator[None]:
    """Errors of httpx leave as ServiceError, with what ``trace`` knows of the try."""
    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError, UnicodeError):
        # Their texts quote header values: neither text nor cause goes on.
        raise ServiceError(
            "the request can't be sent: its URL or one of its headers has an illegal character",
            type="system_error",
            reason="config_error",
            retry=False,
        ) from None
    except (httpx.HTTPError, httpx.StreamError, OSError) as error:
        raise _fault(error, trace) from error


def _fault(error: Exception, trace: RequestTrace) -> ServiceError:
    """The ServiceError for a failed exchange."""
    kind: tuple[FailureType, str, str]
    match error:
        case httpx.ProxyError():
            kind = ("network_error", "proxy_error", f"the proxy refused: {error}")
        case httpx.ConnectTimeout():
            kind = ("network_error", "network_timeout", f"no connection in time, ended while {trace.phase}")
        case httpx.TimeoutException():
            kind = ("timeout", "network_timeout", f"no byte moved in time while {trace.phase}")
        case httpx.RemoteProtocolError() if not str(error).startswith(_CUT):
            kind = ("response_error", "corrupted_data", f"the answer is not HTTP: {error}")
        case _:
            return network_fault(error, trace.phase, sent=trace.sent)
    type_, reason, text = kind
    return ServiceError(excerpt(text, 400), type=type_, reason=reason, retry=True, maybe_started=trace.sent)


def _bad_redirect(status: int, where: str) -> ServiceError:
    return ServiceError(
        f"the service answered {status}, a redirect of {where}",
        status=status,
        type="system_error",
        reason="config_error",
        retry=False,
    )

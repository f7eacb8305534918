"""A small CDN for tests and the demo: serves what lies in a folder or at a store's URL, in good and in bad moods.

::

    async with open_cdn(Path("assets")) as cdn:
        cdn.missing = 3          # the first three requests for each file are answered with 404
        ...                      # CLOUD_CDN_URL=cdn.url
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from emp_trio.assets.media import HEAD, media_type
from emp_trio.testing.serve import open_server

if TYPE_CHECKING:
    import httpx

Answer = tuple[int, dict[str, str], bytes]


class Cdn:
    """A CDN and its moods, which can be changed at any time.

    Attributes:
        url: its base URL, for ``CLOUD_CDN_URL``.
        delay: seconds before each answer.
        missing: so many requests for each file are answered with 404 before it is found.
        caches_404: an address once answered with 404 is answered so ever after.
        ignores_query: the cache takes an address with a query for the one without.
        outdated: file name -> older content that the cache still has for its plain address.
        hangs: takes requests and never answers.
        down: answers every request with 502, as an edge without its servers does.
        refuses_head: answers HEAD with 405.
        requests: method and address (path and query) of every request so far.
        app: its ASGI application.
    """

    def __init__(self, origin: str | Path, client: httpx.AsyncClient) -> None:
        self.url = ""
        self.delay = 0.0
        self.missing = 0
        self.caches_404 = False
        self.ignores_query = False
        self.outdated: dict[str, bytes] = {}
        self.hangs = False
        self.down = False
        self.refuses_head = False
        self.requests: list[tuple[str, str]] = []
        self._origin = origin.rstrip("/") if isinstance(origin, str) else origin
        self._client = client
        self._asked: Counter[str] = Counter()
        self._not_found: set[str] = set()
        self._changed = trio.Event()
        self.app = Starlette(routes=[Route("/{path:path}", self._serve, methods=["GET", "HEAD"])])

    async def until_requests(self, number: int) -> None:
        """Wait until that many requests have come."""
        while len(self.requests) < number:
            await self._changed.wait()

    async def fetch(self, url: str) -> bytes:
        """A file as a reader gets it; whatever the answer is."""
        return (await self._client.get(url)).content

    async def _serve(self, request: Request) -> Response:
        path, query = request.path_params["path"], request.url.query
        address = path + (f"?{query}" if query else "")
        self.requests.append((request.method, address))
        self._changed.set()
        self._changed = trio.Event()
        await trio.sleep(self.delay)
        if self.hangs:
            await trio.sleep_forever()
        wanted = request.headers.get("range", "")
        status, headers, body = await self._answer(request.method, path, path if self.ignores_query else address)
        if status == 200 and wanted.startswith("bytes="):
            status, headers, body = _part(wanted, headers, body)
        headers["content-length"] = str(len(body))
        return Response(b"" if request.method == "HEAD" else body, status, headers)

    async def _answer(self, method: str, path: str, address: str) -> Answer:
        if self.down:
            return 502, {}, b"bad gateway"
        if self.refuses_head and method == "HEAD":
            return 405, {"allow": "GET"}, b""
        if address in self.outdated:
            return 200, {}, self.outdated[address]
        if address in self._not_found:
            return 404, {}, b"not found (cached)"
        self._asked[path] += 1
        answer: Answer = (404, {}, b"not found")
        if self._asked[path] > self.missing:
            answer = await self._fetch(path)
        if answer[0] == 404 and self.caches_404:
            self._not_found.add(address)
        return answer

    async def _fetch(self, path: str) -> Answer:
        """The file as the origin has it."""
        if isinstance(self._origin, str):
            response = await self._client.get(f"{self._origin}/{quote(path)}")
            kept = ("content-type", "etag", "cache-control", "x-ms-meta-sha256")
            return (
                response.status_code,
                {k: response.headers[k] for k in kept if k in response.headers},
                response.content,
            )
        root = self._origin.resolve()
        file = (root / path).resolve()
        if not file.is_relative_to(root) or not file.is_file():
            await trio.lowlevel.checkpoint()
            return 404, {}, b"not found"
        content = await trio.to_thread.run_sync(file.read_bytes)
        return 200, {"content-type": media_type(content[:HEAD])}, content


def _part(wanted: str, headers: dict[str, str], body: bytes) -> Answer:
    """The one range that a request asks for."""
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    if not first.isdigit() or int(first) >= len(body):
        return 416, {"content-range": f"bytes */{len(body)}"}, b""
    end = min(int(last), len(body) - 1) if last.isdigit() else len(body) - 1
    part = body[int(first) : end + 1]
    return 206, headers | {"content-range": f"bytes {first}-{end}/{len(body)}"}, part


@asynccontextmanager
async def open_cdn(origin: str | Path, port: int = 0) -> AsyncIterator[Cdn]:
    """Serve a CDN in front of ``origin``.

    Args:
        origin: a folder, or the URL of a publicly readable container; keys are appended to it.
        port: 0 for any free one.

    Yields:
        the CDN, once connections are accepted; it ends at once with the block.
    """
    import httpx

    async with httpx.AsyncClient() as client:
        cdn = Cdn(origin, client)
        async with open_server(cdn.app, port) as cdn.url:
            yield cdn

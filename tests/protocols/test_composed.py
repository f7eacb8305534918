"""Mixins side by side: one connector with all of them, opened and closed by the worker's own function."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.errors import ServiceError
from emp_trio.jobs import Job, JobResult
from emp_trio.protocols.auth import Auth, Bearer
from emp_trio.protocols.http import Http, HttpSettings
from emp_trio.protocols.limits import Limits, LimitsSettings
from emp_trio.protocols.polling import Polling, PollingSettings
from emp_trio.protocols.saves_assets import SavesAssets
from emp_trio.protocols.streaming import SseEvent, Streaming
from emp_trio.protocols.websocket import WebSocket, WebSocketSettings
from emp_trio.secrets import Secret
from emp_trio.services.connector import Connector, open_connector
from emp_trio.settings import Env, setting_fields
from emp_trio.testing.attempt import FakeAttempt
from emp_trio.testing.faulty_server import event_stream, open_faulty_server, reply
from emp_trio.testing.faulty_websocket import Peer, websocket

from .support import MemoryAssets, connector_context, self_signed


class Everything(Http, WebSocket, Polling, Streaming, Limits, SavesAssets, Connector):
    """Starts a job, listens to it, polls it, streams its text, fetches its file and saves it."""

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        api_key: Annotated[Secret, Env("${KEY}")]
        http: Annotated[HttpSettings, Env(base_url="${URL:-http://127.0.0.1}")]
        websocket: WebSocketSettings
        polling: PollingSettings = PollingSettings(interval=0.01)
        limits: LimitsSettings = LimitsSettings(max_concurrent_jobs=1)

    def auth(self) -> Auth:
        return Bearer(self.settings.api_key)

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        async with self.limiter.limit(), self.websocket.open() as socket:
            started = await self.http.request("POST", "/jobs", json=job.payload)
            name = started.json()["id"]
            context.report(10, str(await socket.receive()))
            done = await self.poller.poll(lambda: self._look(name), hint=f"job {name}")
            async with self.streaming.events("GET", f"/jobs/{name}/text", until=_is_last) as events:
                text = "".join([event.data async for event in events])
            image = await self.http.request("GET", done["url"], expect="any")
            asset = await self.assets.save(image.body, job, context, media_type="image/png")
        return JobResult(success=True, data={"text": text, "image_url": asset.cdn_url, "tries": started.tries})

    async def _look(self, name: str) -> dict[str, str] | None:
        answer = (await self.http.request("GET", f"/jobs/{name}", retries=0)).json()
        return answer if answer["status"] == "done" else None


def _is_last(event: SseEvent) -> bool:
    return event.event == "end"


async def test_one_connector_of_all_mixins() -> None:
    async def script(peer: Peer) -> None:
        await peer.send("hello")
        await peer.listen()

    async with open_faulty_server(
        websocket(script),
        reply(503),
        reply(200, json={"id": "j1"}),
        reply(200, json={"status": "queued"}),
        reply(502),
        reply(200, json={"status": "done", "url": "/files/1"}),
        event_stream(b"data: a\n\n", b"event: end\ndata: b\n\n"),
        reply(200, b"\x89PNG", content_type="image/png"),
    ) as faulty:
        settings = Everything.Settings(
            api_key=Secret("key-0815"),
            http=HttpSettings(base_url=faulty.url, retry_delay=0.01),
            websocket=WebSocketSettings(url=faulty.ws_url),
        )
        assets = MemoryAssets()
        async with open_connector(Everything, settings, connector_context(assets)) as connector:
            context = FakeAttempt()
            result = await connector.run(Job(id="1", type="all", payload={"prompt": "x"}), context)
        assert result.data == {"text": "ab", "image_url": "http://cdn/a", "tries": 2}
        assert assets.saved == [{"data": b"\x89PNG", "job": "1", "media_type": "image/png", "index": 0}]
        assert context.reports[0].message == "hello"
        assert {request.headers["authorization"] for request in faulty.requests} == {"Bearer key-0815"}
        with trio.fail_after(60):
            await faulty.emptied()


async def test_an_error_inside_a_job_leaves_the_connector_usable() -> None:
    async def script(peer: Peer) -> None:
        await peer.listen()

    async with open_faulty_server(websocket(script), reply(400, json={"error": "no"})) as faulty:
        settings = Everything.Settings(
            api_key=Secret(""), http=HttpSettings(base_url=faulty.url), websocket=WebSocketSettings(url=faulty.ws_url)
        )
        async with open_connector(Everything, settings, connector_context()) as connector:
            with pytest.raises(ServiceError, match="400 Bad Request: no"):
                await connector.run(Job(id="1", type="all"), FakeAttempt())
            with trio.fail_after(60):
                async with connector.limiter.limit():  # the place of the failed job is free
                    pass


async def test_a_connector_that_accepts_any_certificate_does_so_on_its_sockets_too(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.send("hello")
        await peer.listen()

    context, _ = self_signed(tmp_path)
    async with open_faulty_server(websocket(script), tls=context) as faulty:
        settings = Everything.Settings(
            api_key=Secret(""),
            http=HttpSettings(base_url=faulty.url, verify_tls=False),
            websocket=WebSocketSettings(url=faulty.ws_url),
        )
        async with (
            open_connector(Everything, settings, connector_context()) as connector,
            connector.websocket.open() as socket,
        ):
            assert await socket.receive() == "hello"


def test_no_flat_setting_of_one_mixin_is_that_of_another() -> None:
    names = [field.name for field in setting_fields(Everything.Settings)]
    assert len(names) == len(set(names))
    assert {"base_url", "timeout", "max_retries", "retry_delay", "url", "interval", "max_concurrent_jobs"} <= set(names)


def test_mixins_cost_no_heavy_import() -> None:
    """The command line must answer at once; what speaks HTTP is loaded when a connector is opened."""
    code = (
        "import sys\n"
        "import emp_trio.protocols.http, emp_trio.protocols.websocket, emp_trio.protocols.streaming\n"
        "import emp_trio.protocols.polling, emp_trio.protocols.limits, emp_trio.protocols.saves_assets\n"
        "print([name for name in ('httpx', 'httpcore', 'trio_websocket', 'wsproto') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""Watching a job while Redis is away."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from emp_trio.queue import events
from emp_trio.queue.client import JobInfo, open_queue
from emp_trio.queue.embedded import free_port, open_embedded_server


async def test_a_look_at_the_state_waits_for_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_LOOK_EVERY", 0.01)
    port, server = free_port(), AsyncExitStack()
    url = (await server.enter_async_context(open_embedded_server(tmp_path, port=port))).tcp_url
    try:
        with trio.fail_after(60):
            async with open_queue(url) as queue:
                looked, begun = trio.Event(), trio.Event()
                look: Any = queue.job

                async def counted(job_id: str) -> JobInfo | None:
                    if not queue.port.connected:
                        looked.set()
                    return await look(job_id)

                monkeypatch.setattr(queue, "job", counted)
                job_id = await queue.submit("mock", job_id="j1")
                kinds: list[str] = []

                async def follow() -> None:
                    async with queue.watch(job_id) as happening:
                        async for event in happening:
                            kinds.append(event.kind)
                            begun.set()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(follow)
                    await begun.wait()
                    await server.aclose()
                    await looked.wait()
                    await server.enter_async_context(open_embedded_server(tmp_path, port=port))
                    assert await queue.cancel(job_id) == "cancelled"
        assert kinds == ["queued", "failed"]
    finally:
        await server.aclose()

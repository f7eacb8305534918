"""The connector against the fake, and against a real server where EMP_TRIO_TEST_COMFYUI_URL names one.

Only classes that ship with ComfyUI and no models are used.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from emp_trio.connector_context import ConnectorContext
from emp_trio.protocols.http import HttpSettings
from emp_trio.services.comfyui.connectors import ComfyUIRemoteConnector
from emp_trio.services.comfyui.settings import ComfyUISettings
from emp_trio.services.connector import open_connector
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.comfyui import open_fake_comfyui
from tests.services.comfyui.support import image
from tests.services.support import job, stored

REAL = os.environ.get("EMP_TRIO_TEST_COMFYUI_URL", "")
needs_real = pytest.mark.skipif(not REAL, reason="EMP_TRIO_TEST_COMFYUI_URL names no server")


@pytest.fixture(params=["fake", pytest.param("real", marks=needs_real)])
async def server(request: pytest.FixtureRequest, connector_context: ConnectorContext) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:
        url = REAL if request.param == "real" else (await stack.enter_async_context(open_fake_comfyui())).url
        settings = ComfyUIRemoteConnector.Settings(
            comfyui=ComfyUISettings(host="unused"), http=HttpSettings(base_url=url)
        )
        yield await stack.enter_async_context(open_connector(ComfyUIRemoteConnector, settings, connector_context))


async def test_a_image_is_made_once_and_found_by_the_next_attempt(server: Any, tmp_path: Path) -> None:
    assert (await server.health()).healthy
    job_id, workflow = f"job-{uuid.uuid4()}", image(color=uuid.uuid4().int % 0xFFFFFF)
    context = FakeAttempt(100)
    first = await run_job(server, job({"workflow": workflow}, id=job_id), context)
    assert first.output_files[0].mime_type == "image/png"
    again = await run_job(
        server, job({"workflow": workflow}, id=job_id, attempt=2, checkpoint=context.checkpoint), FakeAttempt(100)
    )
    assert again.service_metadata["adopted"]
    assert again.output_files[0].metadata["sha256"] == first.output_files[0].metadata["sha256"]
    assert len(stored(tmp_path / "assets")) == 1

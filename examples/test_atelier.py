"""The tests of atelier.py: the conformance suite, and what is particular about this service.

PYTHONPATH=. pytest test_atelier.py      # with pytest and pytest-trio
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import ClassVar

import pytest
from atelier import AtelierConnector
from fake_atelier import FakeAtelier

from emp_trio.errors import Refused
from emp_trio.jobs import Job, JobResult
from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.polling import PollingSettings
from emp_trio.services.connector import open_connector
from emp_trio.testing.attempt import run_job
from emp_trio.testing.conformance import ConnectorConformance, open_toolbox
from emp_trio.testing.fake_service import open_fake_service


class TestAtelier(ConnectorConformance):
    connector = AtelierConnector
    payload: ClassVar = {"prompt": "a cat"}

    def open_service(self) -> AbstractAsyncContextManager[FakeAtelier]:
        return open_fake_service(FakeAtelier())

    def settings(self, service: FakeAtelier, url: str) -> AtelierConnector.Settings:
        return AtelierConnector.Settings(
            api_key=service.api_key,
            http=HttpSettings(base_url=url, retry_delay=0.005, read_timeout=2.0, max_connections=2),
            polling=PollingSettings(interval=0.005, attempts=100),
        )

    def long_job(self, service: FakeAtelier) -> Job:
        service.seconds = 3600
        return self.job()

    def begun(self, service: FakeAtelier) -> int:
        return service.begun

    def running(self, service: FakeAtelier) -> int:
        return service.painting

    def check(self, result: JobResult) -> None:
        assert result.data["mime_type"] == "image/png"

    async def test_a_prompt_that_is_declined_is_not_tried_again(self, tmp_path: Path) -> None:
        async with open_fake_service(FakeAtelier()) as service, open_toolbox(tmp_path / "assets") as connector_context:
            service.inject("paint", status=422, message="no cats")
            settings = self.settings(service, service.base_url)
            async with open_connector(AtelierConnector, settings, connector_context) as connector:
                with pytest.raises(Refused, match="no cats"):
                    await run_job(connector, self.job())
        assert service.violations == []

"""The REST connectors and the limited one keep what every connector keeps."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from emp_trio.jobs import Job, JobResult
from emp_trio.protocols.http import HttpSettings
from emp_trio.services.limited import LimitedServiceConnector
from emp_trio.services.rest.background import RestAsyncConnector
from emp_trio.services.rest.sync import RestSyncConnector
from emp_trio.testing.conformance import ConnectorConformance
from emp_trio.testing.fake_service import FakeService, open_fake_service
from tests.services.rest.support import IMAGE, LATER, NOW, Studio, configured

QUICK = {"retry_delay": 0.005, "interval": 0.002, "attempts": 400, "call_timeout": 2, "max_connections": 2}


class Few(ConnectorConformance):
    """Fewer places than usual: what both REST connectors do in them is the same."""

    cuts = cancels = wrongs = 15


class Painting(Few):
    payload: ClassVar = {"prompt": "a cat"}

    def open_service(self) -> AbstractAsyncContextManager[Studio]:
        return open_fake_service(Studio())

    def odd(self, answer: Any) -> Iterable[Any]:
        if isinstance(answer, dict) and answer.get("images"):
            good = base64.b64encode(IMAGE).decode()
            for images in (
                [{"url": "/nowhere/lost.png"}, *answer["images"]],
                [*answer["images"], {"href": "x"}, None],
                [{"url": "http://127.0.0.1:9/private.png"}, *answer["images"]],
                [{"url": f"data:image/png;base64,{good}"}],
                [{"url": "data:image/png;base64,no"}, *answer["images"]],
            ):
                yield answer | {"images": images}

    def check(self, result: JobResult) -> None:
        assert result.data["text"] == "a cat, painted"
        assert result.data["result"] == {"brush": 7}
        assert len(result.output_files) == 1


class TestRestSync(Painting):
    connector = RestSyncConnector

    def settings(self, service: Studio, url: str) -> Any:
        return configured("RestSyncConnector", NOW | {"base_url": url, "retry_delay": 0.005, "max_connections": 2})

    def long_job(self, service: Studio) -> Job:
        service.seconds = 3600
        return self.job()

    def begun(self, service: Studio) -> int:
        return service.count("now")

    def running(self, service: Studio) -> int:
        return service.painting


class TestRestAsync(Painting):
    connector = RestAsyncConnector

    def settings(self, service: Studio, url: str) -> Any:
        return configured("RestAsyncConnector", LATER | {"base_url": url} | QUICK)

    def long_job(self, service: Studio) -> Job:
        service.first_state = "painting"
        return self.job()

    def begun(self, service: Studio) -> int:
        return len(service.works)

    def running(self, service: Studio) -> int:
        return sum(work["state"] == "painting" for work in service.works.values())


class Limited(FakeService):
    """Has a health endpoint and one for work."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.route("work", "POST", "/jobs", self._work)
        self.route("health", "GET", "/health", self._health)

    async def _work(self, request: Request, body: Any) -> Response:
        await trio.sleep(self.seconds)
        return JSONResponse({"text": body["n"]})

    async def _health(self, request: Request, body: Any) -> Response:
        return Response()


class TestLimited(Few):
    connector = LimitedServiceConnector
    payload: ClassVar = {"n": 5}

    def open_service(self) -> AbstractAsyncContextManager[Limited]:
        return open_fake_service(Limited())

    def settings(self, service: Limited, url: str) -> Any:
        return LimitedServiceConnector.Settings(http=HttpSettings(base_url=url, retry_delay=0.005, max_connections=2))

    def long_job(self, service: Limited) -> Job:
        service.seconds = 3600
        return self.job()

    def begun(self, service: Limited) -> int:
        return service.count("work")

    def check(self, result: JobResult) -> None:
        assert result.data == {"text": 5}

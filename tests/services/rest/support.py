"""A service that nobody has written a connector for, and the REST connectors configured for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from emp_trio.connector_context import ConnectorContext
from emp_trio.mapping import Plan, ServiceMapping, plan
from emp_trio.mapping.schema import Route, Service, WorkerType
from emp_trio.services.connector import Connector, open_connector
from emp_trio.services.registry import find_connector
from emp_trio.testing.fake_service import FakeService
from emp_trio.testing.png import make_png

KEY = "studio-key-1234"
IMAGE = make_png(8, 8)

NOW: dict[str, Any] = {
    "api_key": KEY,
    "api_key_header": "x-studio-key",
    "path": "/v1/now",
    "body": {"text": {"$payload": "/prompt"}, "steps": {"$payload": "/steps", "$default": 4}, "ref": {"$job": "id"}},
    "text_at": "/caption",
    "files_at": "/images",
    "file_at": "/url",
    "result_at": "/meta",
    "error_at": "/fault/text",
    "health_path": "/healthy",
    "retry_delay": 0.01,
}
LATER = NOW | {
    "path": "/v1/tasks",
    "id_at": "/job/id",
    "status_path": "/v1/tasks/{id}",
    "status_at": "/job/state",
    "error_at": "/job/fault",
    "progress_at": "/job/done",
    "progress_max": 1,
    "done_words": ["ready"],
    "failed_words": ["broken", "cancelled"],
    "running_words": ["waiting", "painting"],
    "result_path": "/v1/tasks/{id}/output",
    "cancel_path": "/v1/tasks/{id}",
    "cancel_method": "DELETE",
    "interval": 0.01,
    "attempts": 500,
}


class Studio(FakeService):
    """Paints at once, in ``seconds``, or under an id; ``works`` has the state of each, ``images`` what an output
    points to, ``painting`` how many are being painted at once."""

    secret_headers = ("x-studio-key", "authorization")

    def __init__(self) -> None:
        super().__init__()
        self.works: dict[str, dict[str, Any]] = {}
        self.images: Any = [{"url": "/files/one.png"}]
        self.first_state = "ready"
        self.seconds = 0.0
        self.painting = 0
        self.unauthorised = 0
        self.route("now", "POST", "/v1/now", self._now)
        self.route("begin", "POST", "/v1/tasks", self._begin)
        self.route("look", "GET", "/v1/tasks/{id}", self._look)
        self.route("stop", "DELETE", "/v1/tasks/{id}", self._stop)
        self.route("output", "GET", "/v1/tasks/{id}/output", self._output)
        self.route("file", "GET", "/files/{name}", self._file)
        self.route("healthy", "GET", "/healthy", self._healthy)

    def refusal(self, request: Request, body: Any) -> Response | None:
        if request.headers.get("x-studio-key") == KEY:
            return None
        self.unauthorised += 1
        return JSONResponse({"fault": {"text": "who are you?"}}, 401)

    def output(self) -> dict[str, Any]:
        return {"caption": "a cat, painted", "images": self.images, "meta": {"brush": 7}}

    def end(self, state: str = "ready", **facts: Any) -> None:
        """All works end so."""
        for work in self.works.values():
            work.update(state=state, **facts)

    async def _now(self, request: Request, body: Any) -> Response:
        self.painting += 1
        try:
            await trio.sleep(self.seconds)
        finally:
            self.painting -= 1
        return JSONResponse(self.output() | {"asked": body})

    async def _begin(self, request: Request, body: Any) -> Response:
        name = f"work {len(self.works) + 1}?#"  # an id that must be quoted in a path
        self.works[name] = {"id": name, "state": self.first_state, "done": 0.5}
        return JSONResponse({"job": self.works[name]}, 202)

    async def _look(self, request: Request, body: Any) -> Response:
        found = self.works.get(unquote(request.path_params["id"]))
        return JSONResponse({"job": found}) if found else JSONResponse({"job": None}, 404)

    async def _stop(self, request: Request, body: Any) -> Response:
        self.works[unquote(request.path_params["id"])]["state"] = "cancelled"
        return Response(status_code=204)

    async def _output(self, request: Request, body: Any) -> Response:
        return JSONResponse(self.output())

    async def _file(self, request: Request, body: Any) -> Response:
        return Response(IMAGE, media_type="image/png")

    async def _healthy(self, request: Request, body: Any) -> Response:
        return Response(b"yes")


def configured(name: str, api_config: dict[str, Any], env: dict[str, str] | None = None) -> Any:
    """Settings of a REST connector, by the way that a mapping goes."""
    return planned(name, api_config, env).services["s"].settings


def planned(name: str, api_config: dict[str, Any], env: dict[str, str] | None = None) -> Plan:
    """The plan of a mapping that has this one service. Raises ConfigError."""
    routes = (Route(job_service_required="paint", worker_service="s"),)
    mapping = ServiceMapping(
        workers={"w": WorkerType(job_service_required_map=routes)},
        services={"s": Service(connector=name, api_config=api_config)},
    )
    return plan(mapping, "w", env=env or {}, gpus=0, find_connector=find_connector)


@asynccontextmanager
async def open_rest(
    name: str, base_url: str, connector_context: ConnectorContext, api_config: dict[str, Any], **changes: Any
) -> AsyncIterator[Connector]:
    """The connector of that name, configured for ``base_url``."""
    settings = configured(name, {"base_url": base_url} | api_config | changes)
    found = find_connector(name)
    assert found is not None
    async with open_connector(found, settings, connector_context) as connector:
        yield connector

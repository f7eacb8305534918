"""The simulated HTTP service behind ``emp-trio simulate http`` (connector reference 3.2).

``POST /process`` starts a job, ``GET /history/{id}`` says how far it is, ``GET /view`` gives the image it made,
``POST /cancel/{id}`` stops it, ``GET /health`` answers. A job's state is a function of the clock: nothing runs between
two calls.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emp_trio.testing.serve import open_server
from emp_trio.testing.sim_core import Simulation, begin

_KEPT: Final = 10_000  # jobs remembered; the oldest are forgotten, as a service does after a while


class SimulatedHttpService:
    """A service that makes a small PNG per job. ``app`` is its ASGI application.

    Args:
        default_seconds: how long a job takes when neither its payload nor the connector says.

    Attributes:
        base_url: where it is served (set by :func:`open_simulated_http`).
        jobs: by the service's id, oldest first.
    """

    def __init__(self, *, default_seconds: float = 1.0) -> None:
        self.base_url = ""
        self.default_seconds = default_seconds
        self.jobs: dict[str, Simulation] = {}
        self._numbers = itertools.count(1)
        self._changed = trio.Event()
        self.app = Starlette(
            routes=[
                Route("/process", self._process, methods=["POST"]),
                Route("/history/{id}", self._history),
                Route("/cancel/{id}", self._cancel, methods=["POST"]),
                Route("/view", self._view),
                Route("/health", self._health),
            ]
        )

    def states(self) -> list[str]:
        """The state of every job, oldest first."""
        return [job.state(trio.current_time()) for job in self.jobs.values()]

    async def until_started(self, jobs: int) -> None:
        """Wait until that many jobs have been started."""
        while len(self.jobs) < jobs:
            await self._changed.wait()

    async def _process(self, request: Request) -> Response:
        try:
            message = msgspec.json.decode(await request.body(), type=dict[str, Any])
            job = begin(
                f"sim-{next(self._numbers)}",
                message,
                config="simulation_config",
                now=trio.current_time(),
                default_seconds=self.default_seconds,
            )
        except msgspec.DecodeError as error:
            return JSONResponse({"error": str(error)}, 400)
        self.jobs[job.id] = job
        if len(self.jobs) > _KEPT:
            del self.jobs[next(iter(self.jobs))]
        self._changed.set()
        self._changed = trio.Event()
        return JSONResponse({"simulation_id": job.id, "status": "processing", "message": "simulation started"})

    async def _history(self, request: Request) -> Response:
        job = self.jobs.get(request.path_params["id"])
        if job is None:
            return _unknown(request)
        now = trio.current_time()
        entry: dict[str, Any] = {"status": job.state(now)}
        match entry["status"]:
            case "running":
                step = job.step(now)
                entry |= {"step": step, "steps": job.steps, "progress": 100 * step / job.steps}
            case "success":
                image = {"filename": f"{job.id}.png", "subfolder": "", "type": "output", "mime_type": "image/png"}
                entry |= {"execution_time": job.seconds, "results": job.results(), "outputs": {"images": [image]}}
            case "error":
                entry |= {"error": job.steering.fail, "retryable": job.steering.retryable}
        return JSONResponse({job.id: entry})

    async def _cancel(self, request: Request) -> Response:
        job = self.jobs.get(request.path_params["id"])
        if job is None:
            return _unknown(request)
        now = trio.current_time()
        job.cancel(now)
        return JSONResponse({"simulation_id": job.id, "status": job.state(now)})

    async def _view(self, request: Request) -> Response:
        job = self.jobs.get(request.query_params.get("filename", "").removesuffix(".png"))
        if job is None or job.state(trio.current_time()) != "success":
            return _unknown(request)
        return Response(job.image(), media_type="image/png")

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "healthy", "running": self.states().count("running")})


def _unknown(request: Request) -> Response:
    return JSONResponse({"error": f"nothing known about {request.url.path}"}, 404)


@asynccontextmanager
async def open_simulated_http(
    port: int = 0, *, host: str = "127.0.0.1", default_seconds: float = 1.0
) -> AsyncIterator[SimulatedHttpService]:
    """Serve a simulated HTTP service for the length of the block.

    Args:
        port: 0 for any free one.
        default_seconds: see :class:`SimulatedHttpService`.

    Yields:
        the service; its ``base_url`` is where to find it.
    """
    service = SimulatedHttpService(default_seconds=default_seconds)
    async with open_server(service.app, port, host=host) as service.base_url:
        yield service

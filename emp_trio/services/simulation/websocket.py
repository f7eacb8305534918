"""The connector of the simulated WebSocket service: all jobs on one socket (connector reference 3.3)."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, ClassVar

import msgspec
import structlog
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.errors import ServiceError
from emp_trio.jobs import Job, JobResult
from emp_trio.nursery import lone_error_raised
from emp_trio.protocols.saves_assets import SavesAssets
from emp_trio.protocols.websocket import WebSocket, WebSocketSettings
from emp_trio.services.connector import Connector, Health, ServiceFeatures
from emp_trio.services.outputs import Output, OutputFiles, decoded_files
from emp_trio.services.shared_socket import SharedSocket
from emp_trio.services.simulation.job import (
    SimulationSettings,
    result_data,
    save_images,
    service_result,
    wants_assets,
)
from emp_trio.services.simulation.messages import Completed, Event, Failed, Progressed, decode
from emp_trio.settings import Env

log = structlog.get_logger(__name__)


class SimulationWebsocketConnector(WebSocket, SavesAssets, Connector["SimulationWebsocketConnector.Settings"]):
    """Jobs of the simulated WebSocket service.

    The image of a job is saved where ``payload.save_assets`` is true. The service ends the jobs of a socket that
    closes, so there is nothing for a next attempt to adopt: a lost socket fails its jobs at once, as worth a retry.
    """

    service_type: ClassVar[str] = "simulation-websocket"
    service_features: ClassVar[ServiceFeatures] = ServiceFeatures(cancellation=True)
    takes_any_payload: ClassVar[bool] = True

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """Settings of the WebSocket simulation.

        Attributes:
            reconnect_delay: seconds before the first reconnect, doubled up to ``reconnect_cap``.
            cleanup_timeout: seconds that the upstream cancel may take.
        """

        websocket: Annotated[WebSocketSettings, Env(url="${SIMULATION_WEBSOCKET_URL:-ws://localhost:8399}")]
        simulation: SimulationSettings = SimulationSettings()
        reconnect_delay: Annotated[float, msgspec.Meta(ge=0)] = 1.0
        reconnect_cap: Annotated[float, msgspec.Meta(ge=0)] = 30.0
        cleanup_timeout: Annotated[float, msgspec.Meta(gt=0)] = 5.0

    _shared: SharedSocket[tuple[str | None, Event | None], Event]

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Keep the socket open while the connector is."""
        self._shared = SharedSocket(
            self.websocket.open,
            decode,
            lambda message: message,
            delay=self.settings.reconnect_delay,
            cap=self.settings.reconnect_cap,
        )
        with lone_error_raised():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._shared.keep_open)
                yield
                if not self._shared.close():
                    nursery.cancel_scope.cancel()

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        """Run one attempt.

        Raises:
            ServiceError: the service failed the job or cancelled it, or the socket was lost.
            AssetError: the image could not be saved.
            trio.Cancelled: after the simulation was cancelled upstream.
        """
        if wants_assets(job):
            self.assets.check(job)
        wire_id = f"{job.id}-{job.attempt}"  # messages of an earlier attempt must not reach this one
        request = {
            "type": "simulation_job",
            "job_id": wire_id,
            "job_type": job.type,
            "payload": job.sent_payload,
            "config": self.settings.simulation.config(),
            "timestamp": _now(),
        }
        waiting = _Waiting(context)
        context.report(5, "submitting the simulation")
        socket = await self._shared.socket(self.settings.websocket.handshake_timeout)
        with self._shared.receiving(wire_id, waiting):
            try:
                await socket.send_json(request)
                completed = await waiting.outcome()
            except trio.Cancelled:
                await self._cancel(wire_id)  # whatever the reason: no next attempt could adopt it
                raise
        saved = await save_images(self.assets, await _images(completed), job, context) if wants_assets(job) else []
        context.report(100, "simulation completed")
        data = result_data(
            job,
            simulation_id=completed.simulation_id,
            steps=self.settings.simulation.steps,
            processing_time_ms=completed.processing_time_ms,
            results=completed.results,
        )
        return service_result(
            data | {"output_url": completed.output_url},
            saved,
            request=request,
            service_version="simulation-websocket",
            service_type=self.service_type,
        )

    async def health(self) -> Health:
        """Whether the socket is open."""
        await trio.lowlevel.checkpoint()
        trouble = self._shared.trouble
        return Health(healthy=not trouble, detail=trouble)

    async def _cancel(self, wire_id: str) -> None:
        with trio.move_on_after(self.settings.cleanup_timeout, shield=True):
            try:
                socket = await self._shared.socket(0)
                await socket.send_json({"type": "cancel_simulation", "job_id": wire_id, "timestamp": _now()})
            except ServiceError as error:  # a socket that is gone has ended the job by itself
                log.warning("upstream.not_stopped", job=wire_id, error=error.message)


async def _images(completed: Completed) -> OutputFiles:
    outputs = [Output(source=data, media_type=media_type) for data, media_type in completed.images]
    return await decoded_files(outputs, images=True)


class _Waiting:
    """The messages of one job, up to its outcome."""

    def __init__(self, context: AttemptContext) -> None:
        self._context = context
        self._ended = trio.Event()
        self._outcome: Completed | ServiceError | None = None

    def take(self, event: Event) -> None:
        match event:
            case Progressed():
                self._context.report(
                    5 + 0.9 * event.percent, f"simulating, {event.percent:.0f} %", total_steps=event.total_steps
                )
            case Failed():
                self._end(ServiceError(f"the simulation failed: {event.message}", retry=event.retryable))
            case Completed():
                self._end(event)

    def lost(self, error: ServiceError) -> None:
        self._end(error)

    async def outcome(self) -> Completed:
        await self._ended.wait()
        if isinstance(self._outcome, ServiceError):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome

    def _end(self, outcome: Completed | ServiceError) -> None:
        if self._outcome is None:  # the first outcome counts: a cancelled job may be reported as cancelled later
            self._outcome = outcome
            self._ended.set()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat()

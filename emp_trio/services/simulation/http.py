"""The connector of the simulated HTTP service: submit, poll, fetch the image (connector reference 3.2)."""

from __future__ import annotations

import functools
from typing import Annotated, Any, ClassVar

import msgspec
import structlog

from emp_trio.attempt import AttemptContext
from emp_trio.errors import ServiceError
from emp_trio.jobs import Job, JobResult
from emp_trio.protocols.http import Http, HttpSettings
from emp_trio.protocols.http.paths import segment
from emp_trio.protocols.parsing import Lenient, parse, parse_or_empty
from emp_trio.protocols.polling import Ended, Polling, PollingSettings
from emp_trio.protocols.saves_assets import GeneratedFile, SavesAssets
from emp_trio.services.connector import Connector, Health, ServiceFeatures
from emp_trio.services.outputs import OutputFiles, checked, kept
from emp_trio.services.probing import probe
from emp_trio.services.remote_work import run_remote_work
from emp_trio.services.simulation.job import (
    SimulationSettings,
    result_data,
    save_images,
    service_result,
    wants_assets,
)
from emp_trio.services.simulation.messages import quoted
from emp_trio.services.work_states import phase_of
from emp_trio.settings import Env

log = structlog.get_logger(__name__)


class _Accepted(msgspec.Struct, frozen=True):
    """The answer to a new job; its id goes by either name."""

    simulation_id: Lenient[str] = ""
    prompt_id: Lenient[str] = ""


class _Simulation(msgspec.Struct, frozen=True):
    """A job in the history."""

    status: Lenient[str] = ""
    progress: Lenient[float | None] = None
    step: Any = None
    error: Any = None
    retryable: Lenient[bool] = True
    outputs: Any = None
    results: Lenient[dict[str, Any]] = msgspec.field(default_factory=dict)
    execution_time: Lenient[int | float] = 0


class _Outputs(msgspec.Struct, frozen=True):
    images: Lenient[list[Lenient[dict[str, Any]]]] = []


class SimulationHttpConnector(Http, Polling, SavesAssets, Connector["SimulationHttpConnector.Settings"]):
    """Jobs of the simulated HTTP service.

    The image of a job is saved where ``payload.save_assets`` is true. A simulation found under the id that an earlier
    attempt remembered is adopted instead of being started again.
    """

    service_type: ClassVar[str] = "simulation"
    service_features: ClassVar[ServiceFeatures] = ServiceFeatures(job_status=True, cancellation=True)
    takes_any_payload: ClassVar[bool] = True

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """Settings of the HTTP simulation; ``cleanup_timeout`` bounds the upstream cancel, in seconds."""

        http: Annotated[HttpSettings, Env(base_url="${SIMULATION_HTTP_URL:-http://localhost:8299}")]
        polling: PollingSettings = PollingSettings(interval=1.0, attempts=120)
        simulation: SimulationSettings = SimulationSettings()
        cleanup_timeout: float = 5.0

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        """Run one attempt.

        Raises:
            ServiceError: the service failed the job, cancelled it, sent no image, or is out of reach.
            AssetError: the image could not be saved.
            trio.Cancelled: after the simulation was cancelled upstream, where ``context.stop_remote_work`` says so.
        """
        if wants_assets(job):
            self.assets.check(job)
        request = {
            "job_id": job.id,
            "job_type": job.type,
            "payload": job.sent_payload,
            "simulation_config": self.settings.simulation.config(),
        }

        async def start() -> str:
            context.report(5, "submitting the simulation")
            return _simulation_id((await self.http.request("POST", "/process", json=request)).json())

        simulation_id, entry = await run_remote_work(
            job,
            context,
            key="simulation_id",
            usable=self._usable,
            start=start,
            wait=lambda found: self._finished(found, context),
            cancel=lambda found: self.http.request("POST", f"/cancel/{segment(found)}", idempotent=True, expect="any"),
            grace=self.settings.cleanup_timeout,
        )
        saved = await save_images(self.assets, await self._images(entry), job, context) if wants_assets(job) else []
        context.report(100, "simulation completed")
        data = result_data(
            job,
            simulation_id=simulation_id,
            steps=self.settings.simulation.steps,
            processing_time_ms=entry.execution_time * 1000,
            results=entry.results,
        )
        return service_result(
            data | {"outputs": entry.outputs},
            saved,
            request=request,
            service_version="simulation-http",
            service_type=self.service_type,
        )

    async def health(self) -> Health:
        """Ask the service's health endpoint."""
        return await probe(self.http, "/health", retries=0)

    async def _usable(self, simulation_id: str) -> bool:
        try:
            answer = await self.http.request("GET", f"/history/{segment(simulation_id)}")
        except ServiceError as error:
            if error.status == 404:
                return False
            raise
        entry = _entry(answer.json(), simulation_id)
        return _failure(entry, simulation_id) is None or bool(_images(entry))

    async def _finished(self, simulation_id: str, context: AttemptContext) -> tuple[str, _Simulation]:
        async def look() -> tuple[str, _Simulation] | Ended | None:
            answer = await self.http.request("GET", f"/history/{segment(simulation_id)}", retries=0)
            entry = _entry(answer.json(), simulation_id)
            failure, phase = _failure(entry, simulation_id), phase_of(entry.status)
            if phase == "done" or (phase != "running" and _images(entry)):  # what is made is not made again
                if failure is not None:
                    log.warning("simulation.kept", simulation=simulation_id, why=failure.message)
                return simulation_id, entry
            if failure is not None:
                return Ended(failure)
            if entry.progress is not None:
                context.report(
                    5 + 0.9 * min(max(entry.progress, 0), 100),
                    f"simulating, {entry.progress:.0f} %",
                    step=f"step {entry.step}",
                    total_steps=self.settings.simulation.steps,
                )
            return None

        return await self.poller.poll(look, hint=f"simulation {simulation_id}")

    async def _images(self, entry: _Simulation) -> OutputFiles:
        async def view(image: dict[str, str]) -> GeneratedFile:
            answer = await self.http.request("GET", "/view", params=image, expect="any")
            return checked(answer.body, answer.headers.get("content-type"), images=True)

        return await kept([functools.partial(view, image) for image in _images(entry)])


def _simulation_id(answer: Any) -> str:
    accepted = parse_or_empty(_Accepted, answer)
    if not (simulation_id := accepted.simulation_id or accepted.prompt_id):
        raise ServiceError(
            "the simulated service accepted a job without giving it a simulation_id",
            type="response_error",
            reason="missing_expected_data",
            maybe_started=True,
        )
    return simulation_id


def _entry(answer: Any, simulation_id: str) -> _Simulation:
    """The job's entry in a history answer; empty while the service has nothing to say.

    Raises:
        ServiceError: (response_error) it is no history. The work goes on all the same.
    """
    return parse(dict[str, Lenient[_Simulation]], answer, "a history was expected").get(simulation_id, _Simulation())


def _failure(entry: _Simulation, simulation_id: str) -> ServiceError | None:
    match phase_of(entry.status):
        case "failed" | "expired" | "stopped":
            return ServiceError(
                f"simulation {simulation_id} failed: {quoted(entry.error)}",
                retry=entry.retryable,
            )
        case "cancelled":
            return ServiceError(f"simulation {simulation_id} was cancelled in the service", retry=False)
    return None


def _images(entry: _Simulation) -> list[dict[str, str]]:
    """Where to find each image, as parameters of ``/view``."""
    found = parse_or_empty(_Outputs, entry.outputs).images
    return [{k: str(image[k]) for k in ("filename", "subfolder", "type") if k in image} for image in found]

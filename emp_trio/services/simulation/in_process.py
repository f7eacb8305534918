"""A simulation without a service: timed steps, progress, and failures on request."""

from __future__ import annotations

import random
from typing import Annotated, Any, ClassVar

import msgspec
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.errors import ServiceError
from emp_trio.jobs import Job, JobResult
from emp_trio.services.connector import Connector, ServiceFeatures
from emp_trio.services.lenient import read_fields
from emp_trio.services.simulation.job import SimulationSettings, result_data
from emp_trio.settings import Env


class SimulateOptions(msgspec.Struct, frozen=True):
    """``payload.simulate``: the same fields as for the simulated services, without assets."""

    seconds: Annotated[float, msgspec.Meta(ge=0, le=86_400)] | None = None
    steps: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None
    fail: str | None = None
    retryable: bool = True


class SimulationConnector(Connector["SimulationConnector.Settings"]):
    """Sleeps through its steps in this process.

    ``payload.simulate`` may set ``seconds``, ``steps``, ``fail`` (a message) and ``retryable``. Jobs fail at random
    only where ``failure_rate`` (0 to 1, ``WORKER_SIMULATION_FAILURE_RATE``) is set.
    """

    service_type: ClassVar[str] = "simulation"
    service_features: ClassVar[ServiceFeatures] = ServiceFeatures(cancellation=True)
    takes_any_payload: ClassVar[bool] = True

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """Settings of the in-process simulation."""

        failure_rate: Annotated[float, msgspec.Meta(ge=0, le=1), Env("${WORKER_SIMULATION_FAILURE_RATE:-0}")] = 0.0
        simulation: SimulationSettings = SimulationSettings()

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        """Run one attempt.

        Raises:
            InvalidJob: a field of ``payload.simulate`` is invalid.
            ServiceError: the payload, or chance as set, asked for a failure.
        """
        options = read_fields(SimulateOptions, job.payload.get("simulate"), "payload.simulate")
        settings = self.settings.simulation
        seconds = settings.processing_time if options.seconds is None else options.seconds
        steps = options.steps or settings.steps
        for step in range(1, steps + 1):
            await trio.sleep(seconds / steps)
            context.report(100 * step / steps, f"step {step} of {steps}", step=f"step {step}", total_steps=steps)
        if options.fail is not None:
            raise ServiceError(f"the simulation failed: {options.fail}", retry=options.retryable)
        if random.random() < self.settings.failure_rate:
            raise ServiceError("the simulation failed by chance (failure_rate)")
        results: dict[str, Any] = {"iterations": steps, "final_value": round(1 - 0.5**steps, 6), "convergence": True}
        return JobResult(
            success=True,
            data=result_data(
                job, simulation_id=job.id, steps=steps, processing_time_ms=seconds * 1000, results=results
            ),
            service_metadata={"service_version": "simulation", "service_type": self.service_type},
        )

"""What the three simulation connectors share: settings, and the look of results (connector reference 3). Pure."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from emp_trio.jobs import Job
from emp_trio.services.lenient import flag
from emp_trio.services.redaction import redacted
from emp_trio.settings import Env


class SimulationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How long a simulated job takes, unless its payload says.

    Attributes:
        processing_time: seconds per job.
        steps: progress steps per job.
        progress_interval_ms: milliseconds between two progress messages of a service that sends them.
    """

    processing_time: Annotated[float, msgspec.Meta(ge=0, le=86_400), Env("${WORKER_SIMULATION_PROCESSING_TIME:-5}")] = (
        5.0
    )
    steps: Annotated[int, msgspec.Meta(ge=1, le=10_000), Env("${WORKER_SIMULATION_STEPS:-10}")] = 10
    progress_interval_ms: Annotated[
        float, msgspec.Meta(ge=1), Env("${WORKER_SIMULATION_PROGRESS_INTERVAL_MS:-200}")
    ] = 200.0

    def config(self) -> dict[str, float]:
        """The configuration as the services take it."""
        return {
            "processing_time_ms": self.processing_time * 1000,
            "steps": self.steps,
            "progress_interval_ms": self.progress_interval_ms,
        }


def result_data(
    job: Job, *, simulation_id: str, steps: int, processing_time_ms: float, results: dict[str, Any]
) -> dict[str, Any]:
    """``data`` of a simulated job's result (connector reference 3.2), without file bytes and secrets of the payload."""
    return {
        "message": "simulation completed",
        "steps_completed": steps,
        "processing_time_ms": processing_time_ms,
        "job_payload": redacted(job.sent_payload),
        "simulation_id": simulation_id,
        "results": results,
    }


def wants_assets(job: Job) -> bool:
    """Whether the job asks for its image to be saved: ``payload.save_assets``, off by default, so that a plain
    simulation needs no storage. Raises InvalidJob where it is neither true nor false."""
    return flag(job.payload, "save_assets", default=False)

"""Settings and results of the three simulation connectors (connector reference 3)."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import structlog

from emp_trio.attempt import AttemptContext
from emp_trio.jobs import Job, JobResult, SavedAsset
from emp_trio.protocols.saves_assets import AssetSaver
from emp_trio.services.lenient import flag
from emp_trio.services.outputs import OutputFiles
from emp_trio.services.redaction import redacted
from emp_trio.services.results import asset_data, saved_asset
from emp_trio.settings import Env

log = structlog.get_logger(__name__)


class SimulationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Duration and steps of a job whose payload does not say.

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
        """Return the configuration in the form that the simulated services take."""
        return {
            "processing_time_ms": self.processing_time * 1000,
            "steps": self.steps,
            "progress_interval_ms": self.progress_interval_ms,
        }


def result_data(
    job: Job, *, simulation_id: str, steps: int, processing_time_ms: float, results: dict[str, Any]
) -> dict[str, Any]:
    """Build ``data`` of a result (connector reference 3.2); file bytes and secrets of the payload are left out."""
    return {
        "message": "simulation completed",
        "steps_completed": steps,
        "processing_time_ms": processing_time_ms,
        "job_payload": redacted(job.sent_payload),
        "simulation_id": simulation_id,
        "results": results,
    }


def wants_assets(job: Job) -> bool:
    """Return whether the job's image is to be saved: ``payload.save_assets``, off by default, so that a plain
    simulation needs no storage.

    Raises:
        InvalidJob: it is neither true nor false.
    """
    return flag(job.payload, "save_assets", default=False)


async def save_images(saver: AssetSaver, images: OutputFiles, job: Job, context: AttemptContext) -> list[SavedAsset]:
    """Save the images of a job, and log those that could not be read.

    Raises:
        AssetError: an image could not be saved.
    """
    for warning in images.warnings:
        log.warning(warning)
    return [
        await saver.save(file.data, job, context, media_type=file.media_type, index=index)
        for index, file in enumerate(images.files)
    ]


def service_result(
    data: dict[str, Any],
    saved: list[SavedAsset],
    *,
    request: dict[str, Any],
    service_version: str,
    service_type: str,
) -> JobResult:
    """Build the result of a job that a simulated service has run.

    Args:
        data: from :func:`result_data`.
        saved: the saved images; the first is the result's main asset.
        request: the request that was sent; its payload is kept as in ``data``.
    """
    return JobResult(
        success=True,
        data=data | (asset_data(saved[0]) if saved else {}),
        metadata={"saved_asset": saved_asset(saved[0])} if saved else {},
        output_files=tuple(asset.output_file() for asset in saved),
        service_metadata={
            "service_version": service_version,
            "service_type": service_type,
            "service_job_id": data["simulation_id"],
        },
        raw_request_payload=request | {"payload": data["job_payload"]},
    )

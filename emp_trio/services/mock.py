"""A connector without a service: waits, then succeeds or fails as its payload says (connector reference 3.4)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
import trio

from emp_trio.errors import InvalidJob, ServiceError
from emp_trio.jobs import Job, JobResult
from emp_trio.progress import ProgressReporter
from emp_trio.services.connector import Abilities, Connector


class MockPayload(msgspec.Struct, frozen=True):
    """What a mock job may say."""

    delay_ms: Annotated[float, msgspec.Meta(ge=0, le=86_400_000)] = 100
    should_fail: bool = False
    test_data: Any = None


class MockConnector(Connector):
    """Waits ``delay_ms`` milliseconds (100) and returns ``test_data``; fails for good when ``should_fail`` is true."""

    service_type: ClassVar[str] = "mock"
    abilities: ClassVar[Abilities] = Abilities(cancellation=True)

    async def run(self, job: Job, progress: ProgressReporter) -> JobResult:
        """Run one attempt.

        Returns:
            ``data`` with ``test_data``, ``mock_url`` and ``processing_time_ms``.

        Raises:
            InvalidJob: the payload has the wrong types.
            ServiceError: the payload asked for a failure; not worth another attempt.
        """
        try:
            payload = msgspec.convert(job.payload, MockPayload)
        except msgspec.ValidationError as error:
            raise InvalidJob(f"the payload of a mock job is wrong: {error}", reason="invalid_format") from error
        progress.report(10, "mock job started")
        await trio.sleep(payload.delay_ms / 1000)
        progress.report(80, "mock job almost done")
        if payload.should_fail:
            raise ServiceError("the mock job failed, as its payload asked (should_fail)", retry=False)
        return JobResult(
            success=True,
            data={
                "test_data": payload.test_data,
                "mock_url": f"https://mock.invalid/{job.id}",
                "processing_time_ms": payload.delay_ms,
            },
            service_metadata={"service_version": "mock", "service_type": "mock"},
        )

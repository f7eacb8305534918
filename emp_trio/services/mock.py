"""A connector without a service: waits, then succeeds or fails as its payload says (connector reference 3.4)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.errors import ServiceError
from emp_trio.jobs import Job, JobResult
from emp_trio.services.connector import Connector, ServiceFeatures
from emp_trio.services.lenient import read_fields


class MockPayload(msgspec.Struct, frozen=True):
    """What a mock job may say. A negative delay is none, as for the timers of the fleet's workers."""

    delay_ms: Annotated[float, msgspec.Meta(le=86_400_000)] = 100
    should_fail: bool = False
    test_data: Any = None


class MockConnector(Connector):
    """Waits ``delay_ms`` milliseconds (100) and returns ``test_data``; fails when ``should_fail`` is true, as a service
    that is down: another attempt is made while there are any. Any payload will do."""

    service_type: ClassVar[str] = "mock"
    service_features: ClassVar[ServiceFeatures] = ServiceFeatures(cancellation=True)
    takes_any_payload: ClassVar[bool] = True

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        """Run one attempt.

        Returns:
            ``data`` with ``test_data``, ``mock_url`` and ``processing_time_ms``.

        Raises:
            InvalidJob: a field of the payload can't be what it must be.
            ServiceError: the payload asked for a failure; the fleet's own tests of retries rely on its being retried.
        """
        payload = read_fields(MockPayload, job.payload, "payload")
        delay = max(0.0, payload.delay_ms)
        context.report(10, "mock job started")
        await trio.sleep(delay / 1000)
        context.report(80, "mock job almost done")
        if payload.should_fail:
            raise ServiceError(
                "the mock job failed, as its payload asked (should_fail)", type="service_error", reason="service_down"
            )
        return JobResult(
            success=True,
            data={
                "test_data": payload.test_data,
                "mock_url": f"https://mock.invalid/{job.id}",
                "processing_time_ms": delay,
            },
            service_metadata={"service_version": "mock", "service_type": "mock"},
        )

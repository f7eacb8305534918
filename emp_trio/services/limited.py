"""``LimitedServiceConnector``: the worked example of a service that does its work and says that it is well, no more
(connector reference 9).

What the service can't do is declared in ``abilities``, and the worker says so at start. Two of the gaps are this
connector's affair: a call that may have run can't be looked up, so it is made at most once more; and after a cancel
only the connection can be closed.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from emp_trio.jobs import Job, JobResult
from emp_trio.progress import ProgressReporter
from emp_trio.protocols.http import Http, HttpSettings
from emp_trio.protocols.http_errors import bad_answer
from emp_trio.services.connector import Abilities, Connector, Health
from emp_trio.services.probing import HealthPath, probe
from emp_trio.services.redaction import kept_copy
from emp_trio.services.repeats import counted
from emp_trio.settings import Env


class LimitedServiceConnector(Http, Connector):
    """Sends the payload to ``POST {job_path}``; the JSON object that comes back is the result."""

    service_type: ClassVar[str] = "limited_service"
    abilities: ClassVar[Abilities] = Abilities(
        health_check=True, job_status=False, cancellation=False, queue_introspection=False
    )
    takes_any_payload: ClassVar[bool] = True

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """Settings of a limited service; the variables are the fleet's for services in general (connector reference
        1.2)."""

        http: Annotated[
            HttpSettings,
            Env(
                base_url="${SERVICE_BASE_URL:-http://localhost}",
                timeout="${SERVICE_TIMEOUT_SECONDS:-60}",
                max_retries="${SERVICE_RETRY_ATTEMPTS:-3}",
                retry_delay="${SERVICE_RETRY_DELAY_SECONDS:-1}",
            ),
        ]
        job_path: str = "/jobs"
        health_path: HealthPath = "/health"

    async def run(self, job: Job, progress: ProgressReporter) -> JobResult:
        """Run one attempt.

        Raises:
            ServiceError: the service failed or is out of reach, or has been asked twice without an answer.
            trio.Cancelled: the connection is closed; the service may go on.
        """
        payload = job.sent_payload
        progress.report(5, "asking the service")
        async with counted(job, progress, ahead=True) as sending:
            answer = (
                await self.request(
                    "POST",
                    self.settings.job_path,
                    json=payload,
                    read_timeout=self.settings.http.timeout,
                    sending=sending,
                )
            ).json()
        if not isinstance(answer, dict) or not answer:
            raise bad_answer("the answer is not a JSON object with something in it", reason="missing_expected_data")
        progress.report(100, "done")
        return JobResult(
            success=True,
            data=await kept_copy(answer),
            service_metadata={"service_version": "limited", "service_type": self.service_type},
            raw_request_payload=await kept_copy(payload),
        )

    async def health(self) -> Health:
        """Ask the one thing that the service can be asked."""
        return await probe(self, self.settings.health_path, retries=0)

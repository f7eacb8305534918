"""A connector of one's own in one file: a service that turns text into capitals, over HTTP. In this folder:

export PYTHONPATH=. SHOUTING_URL=http://localhost:8000 SERVICE_MAPPING=shouting-mapping.json
emp-trio explain shout
emp-trio worker --embedded --workers shouting:4
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec

from emp_trio.attempt import AttemptContext
from emp_trio.errors import InvalidJob, ServiceError
from emp_trio.jobs import Job, JobResult
from emp_trio.protocols.http import Http, HttpSettings
from emp_trio.services.connector import Connector, ServiceFeatures
from emp_trio.settings import Env


class ShoutingConnector(Http, Connector["ShoutingConnector.Settings"]):
    """Sends ``payload.text`` to ``POST /shout`` and returns what comes back."""

    service_type: ClassVar[str] = "shouting"
    service_features: ClassVar[ServiceFeatures] = ServiceFeatures(health_check=False)  # this service has nothing to ask

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """Those of HTTP: ``base_url``, ``timeout``, ``max_retries`` and so on, in ``api_config`` of the mapping."""

        http: Annotated[HttpSettings, Env(base_url="${SHOUTING_URL:-http://localhost:8000}")]

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        """Run one attempt: waits, repeats, limits and cancellation are those of ``Http``."""
        text = job.payload.get("text")
        if not isinstance(text, str):
            raise InvalidJob("payload.text is missing", reason="missing_required_field")
        context.report(10, "shouting")
        answer: Any = (await self.http.request("POST", "/shout", json={"text": text})).json()
        if not isinstance(answer, dict) or "shouted" not in answer:
            raise ServiceError("no shout in the answer", type="response_error", reason="missing_expected_data")
        return JobResult(success=True, data={"text": answer["shouted"]})

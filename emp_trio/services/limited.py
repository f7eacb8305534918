"""``LimitedServiceConnector``: example of a service with nothing but work and a health check (connector reference 9).

What the service can't do is declared in ``service_features``, and the worker says so at start. Two of the gaps are this
connector's affair: a call that may have run can't be looked up, so it is made at most once more; and after a cancel
only the connection can be closed.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

import msgspec

from emp_trio.assets.media import HEAD, media_type
from emp_trio.attempt import AttemptContext
from emp_trio.errors import ServiceError
from emp_trio.jobs import Job, JobResult
from emp_trio.offload import off_loop
from emp_trio.protocols.http import Http, HttpResponse, HttpSettings
from emp_trio.protocols.http.errors import LONGEST_TEXT, bad_answer, may_have_started
from emp_trio.secrets import excerpt
from emp_trio.services.billing import counted
from emp_trio.services.connector import Connector, Health, ServiceFeatures
from emp_trio.services.error_shapes import quoted, stated_error, status_of, words_of
from emp_trio.services.probing import HealthPath, probe
from emp_trio.services.redaction import kept_copy
from emp_trio.settings import Env

_OF_ERRORS: Final = frozenset(
    "error message detail code status type object id request_id success ok timestamp path".split()
)  # members of an answer that is nothing but an error


class LimitedServiceConnector(Http, Connector["LimitedServiceConnector.Settings"]):
    """Sends the payload to ``POST {job_path}``; the JSON object that comes back is the result."""

    service_type: ClassVar[str] = "limited_service"
    service_features: ClassVar[ServiceFeatures] = ServiceFeatures(
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

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        """Run one attempt.

        Raises:
            ServiceError: the service failed or is out of reach, its answer has nothing in it, or it has been asked
                twice without an answer.
            trio.Cancelled: the connection is closed; the service may go on.
        """
        payload = job.sent_payload
        context.report(5, "asking the service")
        async with counted(job, context, ahead=True) as sending:
            answer = await self.http.request(
                "POST",
                self.settings.job_path,
                json=payload,
                headers={"accept": "application/json"},
                expect="any",
                read_timeout=self.settings.http.timeout,
                sending=sending,
            )
            data = await off_loop(len(answer.body), _read, answer)
        context.report(100, "done")
        return JobResult(
            success=True,
            data=await kept_copy(data),
            service_metadata={"service_version": "limited", "service_type": self.service_type},
            raw_request_payload=await kept_copy(payload),
        )

    async def health(self) -> Health:
        """Ask the one thing that the service can be asked."""
        return await probe(self.http, self.settings.health_path, retries=0)


def _read(answer: HttpResponse) -> dict[str, Any]:
    """What is in an answer: an object, or a list of them under ``result``.

    Raises:
        ServiceError: there is nothing in it, or something else, or an error under a good status. What has something in
            it is not asked for again: it is paid for.
    """
    try:
        said = answer.json()
    except ServiceError as error:
        kind = media_type(answer.body[:HEAD])
        if kind.startswith(("image/", "audio/", "video/")):
            text = f"the answer is {kind}, which this connector can't save: take RestSyncConnector for this service"
            raise bad_answer(text, reason="unexpected_content_type", retry=False) from error
        said = answer.body.decode("utf-8", "replace").strip()
        if kind != "text/plain" or error.reason != "unexpected_content_type" or said.startswith(("{", "[")):
            raise
    if isinstance(said, dict) and said.get("error") and said.keys() <= _OF_ERRORS:
        stated = stated_error(said) or {}
        status = status_of(stated)
        raise ServiceError(
            f"the service answered with an error: {excerpt(words_of(stated) or quoted(said), LONGEST_TEXT)}",
            status=status,
            retry=None if status is not None else False,
            maybe_started=may_have_started(status or 500),
        )
    if isinstance(said, dict) and any(map(_is_something, said.values())):
        return said
    if isinstance(said, list) and any(
        isinstance(item, dict) and any(map(_is_something, item.values())) for item in said
    ):
        return {"result": said}
    text = f"the answer is not a JSON object with something in it: {quoted(said)}"
    final = isinstance(said, str | int | float) and _is_something(said)
    raise bad_answer(text, reason="missing_expected_data", retry=not final)


def _is_something(value: Any) -> bool:
    return value is not None and value not in ("", [], {})

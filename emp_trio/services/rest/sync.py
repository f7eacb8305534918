"""``RestSyncConnector``: a service that answers a call with the finished work."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from emp_trio.assets.media import HEAD, sniff
from emp_trio.attempt import AttemptContext
from emp_trio.errors import ServiceError
from emp_trio.jobs import Job, JobResult
from emp_trio.offload import off_loop
from emp_trio.protocols.fetch import Fetches, FetchSettings
from emp_trio.protocols.http import Http, HttpResponse, HttpSettings
from emp_trio.protocols.http.errors import bad_answer
from emp_trio.protocols.limits import Limits, LimitsSettings
from emp_trio.protocols.saves_assets import Generated, GeneratedFile, SavesAssets
from emp_trio.services.billing import counted
from emp_trio.services.connector import Connector, Health, ServiceFeatures
from emp_trio.services.rest.answers import wanted_result
from emp_trio.services.rest.api import RestApi, rest_health, rest_result, with_files
from emp_trio.services.rest.calls import RestCall, rest_call
from emp_trio.services.rest.settings import AnswerSettings, CallSettings, LoginSettings, Path, patient
from emp_trio.settings import Env


class RestSyncConnector(RestApi, Http, Limits, Fetches, SavesAssets, Connector["RestSyncConnector.Settings"]):
    """Jobs of any HTTP service that answers when the work is done, by configuration alone.

    A call that the service may have run is made once more for a job, and not again (a GET or PUT as often as the queue
    likes). What it made is kept where it can't be saved, so that nothing is made twice for a storage that was away.
    """

    service_type: ClassVar[str] = "rest_sync"
    service_features: ClassVar[ServiceFeatures] = ServiceFeatures()
    takes_any_payload: ClassVar[bool] = True

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """Settings of a synchronous REST service.

        ``http.timeout`` bounds the call, which may be silent until the work is done. ``response_format`` says what the
        answer is: ``json``; ``text``, which becomes ``data.text``; or ``binary``, a file to be saved. ``health_path``
        is asked for health; without it any answer below 500 at ``base_url`` will do.
        """

        login: LoginSettings = LoginSettings()
        http: Annotated[
            HttpSettings,
            Env(
                base_url="${WORKER_REST_SYNC_BASE_URL:-http://localhost:8080}",
                timeout="${WORKER_REST_SYNC_TIMEOUT_SECONDS:-60}",
                max_retries="${WORKER_REST_SYNC_RETRY_ATTEMPTS:-3}",
                retry_delay="${WORKER_REST_SYNC_RETRY_DELAY_SECONDS:-2}",
            ),
        ]
        call: Annotated[CallSettings, Env(method="${WORKER_REST_SYNC_METHOD:-POST}")] = CallSettings()
        answer: AnswerSettings = AnswerSettings()
        response_format: Annotated[
            Literal["json", "text", "binary"], Env("${WORKER_REST_SYNC_RESPONSE_FORMAT:-json}")
        ] = "json"
        health_path: Annotated[Path | None, Env("${WORKER_REST_SYNC_HEALTH_URL:-}")] = None
        limits: Annotated[LimitsSettings, Env(max_concurrent_jobs="${WORKER_REST_SYNC_MAX_CONCURRENT_JOBS:-}")] = (
            LimitsSettings()
        )
        fetch: FetchSettings = FetchSettings()

        def __post_init__(self) -> None:
            msgspec.structs.force_setattr(self, "http", patient(self.http))

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        """Run one attempt.

        Raises:
            InvalidJob: the payload lacks something, or asks for a call that it must not make.
            ServiceError: the service failed, is out of reach, or its answer lacks what the settings look for.
            AssetError: a file could not be saved; it is kept for the next attempt.
            trio.Cancelled: the connection is closed. Whether the service goes on is its own affair.
        """
        call = rest_call(job, self.settings.call, key_header=self.settings.login.api_key_header)
        return await self.assets.produce(
            job,
            context,
            make=lambda: self._make(call, job, context),
            result=partial(rest_result, call, service_type=self.service_type),
            expects_files=self._makes_files,
        )

    async def health(self) -> Health:
        """Whether ``health_path`` is answered with a 2xx; without it, whether the service answers at all, and does not
        refuse the credentials."""
        return await rest_health(self.http, self.settings.health_path, self.auth())

    @property
    def _makes_files(self) -> bool:
        return self.settings.response_format == "binary" or self.settings.answer.files_at is not None

    async def _make(self, call: RestCall, job: Job, context: AttemptContext) -> Generated:
        context.report(5, "asking the service")
        # The answer to a path of a job's choice may lead anywhere: it is not followed to another host.
        stay = self.settings.call.payload_calls
        once: Any = nullcontext() if call.repeatable else counted(job, context, ahead=True)
        async with self.limiter.limit(), once as sending:
            options = call.options() | {"sending": sending, "same_origin": stay}
            wants_json = self.settings.response_format == "json"
            if wants_json:
                options["headers"] = {"accept": "application/json"} | dict(options.get("headers") or {})
            answer = await self.http.request(call.method, call.path, expect="any", **options)
            found = None
            if wants_json and not _is_media(answer):
                said = await off_loop(len(answer.body), _json, call, answer)
                found = await off_loop(len(answer.body), wanted_result, said, self.settings.answer)
            if not answer.body or (self.settings.response_format == "text" and not answer.body.strip()):
                raise bad_answer("the answer is empty", reason="missing_expected_data")
        if found is not None:
            return await with_files(self.http, self.fetcher, found, answer=self.settings.answer, auth=self.auth())
        if self.settings.response_format == "text":
            return Generated(files=(), data={"text": answer.body.decode("utf-8", "replace")})
        file = GeneratedFile(data=answer.body, media_type=answer.headers.get("content-type"))
        return Generated(files=(file,), data={})


def _is_media(answer: HttpResponse) -> bool:
    """Whether an answer is an image, a sound or a film instead of JSON: it is what was wanted, without the words."""
    return (sniff(answer.body[:HEAD]) or "").startswith(("image/", "audio/", "video/"))


def _json(call: RestCall, answer: HttpResponse) -> Any:
    try:
        return answer.json()
    except ServiceError as error:
        error.message = f"{call.method} {call.path}: {error.message}"
        error.args = (error.message,)
        raise

"""``RestAsyncConnector``: a service that takes work, gives it an id, and is asked until it is done."""

from __future__ import annotations

import time
from contextlib import nullcontext
from functools import partial
from typing import Annotated, Any, ClassVar

import msgspec
import structlog

from emp_trio.attempt import AttemptContext
from emp_trio.errors import ServiceError
from emp_trio.jobs import Job, JobResult
from emp_trio.offload import off_loop, weight
from emp_trio.protocols.auth import auth_secrets
from emp_trio.protocols.fetch import Fetches, FetchSettings
from emp_trio.protocols.http import Http, HttpSettings
from emp_trio.protocols.limits import Limits, LimitsSettings
from emp_trio.protocols.polling import Ended, NotFinished, Polling, PollingSettings, Wait
from emp_trio.protocols.saves_assets import Generated, SavesAssets
from emp_trio.retry import parse_retry_after
from emp_trio.secrets import Redactor
from emp_trio.services.billing import counted
from emp_trio.services.connector import Connector, Health, ServiceFeatures
from emp_trio.services.remote_work import run_remote_work, stop_work
from emp_trio.services.rest.answers import (
    Found,
    State,
    error_text,
    made_all_the_same,
    read_id,
    read_state,
    wanted_result,
)
from emp_trio.services.rest.api import RestApi, rest_health, rest_result, with_files
from emp_trio.services.rest.calls import RestCall, rest_call, with_id
from emp_trio.services.rest.settings import (
    AnswerSettings,
    CallSettings,
    LoginSettings,
    Path,
    WorkSettings,
    polled,
)
from emp_trio.settings import Env, part_of

log = structlog.get_logger(__name__)

_GONE = (404, 410)


class RestAsyncConnector(
    RestApi, Http, Polling, Limits, Fetches, SavesAssets, Connector["RestAsyncConnector.Settings"]
):
    """Jobs of any HTTP service that works in the background, by configuration alone.

    The id of the work is remembered with the job: after a crash, a drain or a lost lease the next attempt waits for the
    same work. A user's cancel stops it at ``cancel_path``, where the service has such a thing.
    """

    service_type: ClassVar[str] = "rest_async"
    service_features: ClassVar[ServiceFeatures] = ServiceFeatures(job_status=True, cancellation=True)
    takes_any_payload: ClassVar[bool] = True

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """Settings of an asynchronous REST service; ``health_path`` as for the synchronous one."""

        login: LoginSettings = LoginSettings()
        http: Annotated[
            HttpSettings,
            Env(
                base_url="${WORKER_REST_ASYNC_BASE_URL:-http://localhost:8080}",
                max_retries="${WORKER_REST_ASYNC_RETRY_ATTEMPTS:-3}",
                retry_delay="${WORKER_REST_ASYNC_RETRY_DELAY_SECONDS:-2}",
            ),
        ]
        call: CallSettings = CallSettings()
        work: Annotated[
            WorkSettings,
            Env(
                status_path="${WORKER_REST_ASYNC_COMPLETION_ENDPOINT:-}",
                status_at="${WORKER_REST_ASYNC_STATUS_FIELD:-}",
                polling_interval_ms="${WORKER_REST_ASYNC_POLLING_INTERVAL_MS:-}",
                work_timeout="${WORKER_REST_ASYNC_TIMEOUT_SECONDS:-}",
            ),
        ] = WorkSettings()
        polling: PollingSettings = PollingSettings(interval=2.0, attempts=150)
        answer: Annotated[AnswerSettings, Env(result_at="${WORKER_REST_ASYNC_RESULT_FIELD:-}")] = AnswerSettings()
        health_path: Path | None = None
        limits: Annotated[LimitsSettings, Env(max_concurrent_jobs="${WORKER_REST_ASYNC_MAX_CONCURRENT_JOBS:-}")] = (
            LimitsSettings()
        )
        fetch: FetchSettings = FetchSettings()

        def __post_init__(self) -> None:
            msgspec.structs.force_setattr(self, "polling", polled(self.polling, self.work))

    @classmethod
    def features(cls, settings: msgspec.Struct) -> ServiceFeatures:
        """Work can be cancelled where the settings say how."""
        cancel_path = part_of(settings, WorkSettings).cancel_path
        return msgspec.structs.replace(cls.service_features, cancellation=cancel_path is not None)

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        """Run one attempt.

        Raises:
            InvalidJob: the payload lacks something, or asks for a call that it must not make.
            ServiceError: the service failed the work or is out of reach, or an answer lacks what the settings look for.
            AssetError: a file could not be saved; it is kept for the next attempt.
            trio.Cancelled: after the work was cancelled upstream, where ``context.stop_remote_work`` says so.
        """
        call = rest_call(job, self.settings.call, key_header=self.settings.login.api_key_header)
        return await self.assets.produce(
            job,
            context,
            make=lambda: self._make(call, job, context),
            result=partial(rest_result, call, service_type=self.service_type),
            expects_files=self.settings.answer.files_at is not None,
        )

    async def health(self) -> Health:
        """Whether ``health_path`` is answered with a 2xx; without it, whether the service answers at all, and does not
        refuse the credentials."""
        return await rest_health(self.http, self.settings.health_path, self.auth())

    @property
    def _work(self) -> WorkSettings:
        return self.settings.work

    async def _make(self, call: RestCall, job: Job, context: AttemptContext) -> Generated:
        async def start() -> str:
            context.report(5, "handing the job to the service")
            once: Any = nullcontext() if call.repeatable else counted(job, context, ahead=True)
            # The answer to a path of a job's choice may lead anywhere: it is not followed to another host.
            stay = self.settings.call.payload_calls
            async with once as sending:
                options = call.options() | {"sending": sending, "same_origin": stay}
                answer = await self.http.request(call.method, call.path, **options)
                return read_id(answer.json(), self._work.id_at)

        async with self.limiter.limit():
            return await run_remote_work(
                job,
                context,
                key="work_id",
                usable=self._usable,
                start=start,
                wait=lambda work: self._finished(work, job, context),
                cancel=self._cancel,
                grace=self._work.cleanup_timeout,
            )

    async def _usable(self, work: str) -> bool:
        """Whether work that an earlier attempt has begun is under way or done."""
        try:
            return (await self._state(work))[0].phase in ("running", "done")
        except ServiceError as error:
            if error.status in _GONE:
                return False
            raise

    async def _finished(self, work: str, job: Job, context: AttemptContext) -> Generated:
        last = ""

        async def look() -> Any:
            nonlocal last
            state, answer, stated = await self._state(work, retries=0)
            if state.phase == "done":
                return None, answer
            if state.phase != "running":
                failure = self._failure(work, state, answer)
                made = None
                if not self._work.result_path:
                    made = await off_loop(weight(answer), made_all_the_same, answer, self.settings.answer)
                if made is None:
                    return Ended(failure)
                warning = f"{failure.message}; what it had made by then is kept"
                return msgspec.structs.replace(made, missing=(warning, *made.missing)), None
            last = state.word
            told = None if state.share is None else 10 + 75 * state.share
            context.report(10 if told is None else told, f"the service says: {state.word}")
            return Wait(stated or 0.0)

        try:
            kept, answer = await self.poller.poll(look, hint=f"work {work}")
        except NotFinished as error:
            error.message += f" (the status is {last!r})" if last else ""
            error.args = (error.message,)
            if job.last_attempt:  # nobody will adopt it
                await stop_work(self._cancel, work, self._work.cleanup_timeout)
            raise
        context.report(85, "fetching the result")
        if kept is not None:
            return await self._with_files(kept, work)
        if self._work.result_path is not None:
            path = with_id(self._work.result_path, work)
            answer = (await self.http.request("GET", path, timeout=self._work.call_timeout)).json()
        found = await off_loop(weight(answer), wanted_result, answer, self.settings.answer)
        return await self._with_files(found, work)

    async def _with_files(self, found: Found, work: str) -> Generated:
        return await with_files(
            self.http, self.fetcher, found, answer=self.settings.answer, auth=self.auth(), work=work
        )

    async def _state(self, work: str, *, retries: int | None = None) -> tuple[State, Any, float | None]:
        """How the work is, the answer that says so, and the seconds that the service asks to wait before the next
        look."""
        path = with_id(self._work.status_path, work)
        try:
            answer = await self.http.request("GET", path, timeout=self._work.call_timeout, retries=retries)
        except ServiceError as error:
            if error.status in _GONE:  # nothing about the job is wrong: it is not known yet, or not any more
                error.type, error.reason, error.retry = "response_error", "missing_expected_data", True
            raise
        said = answer.json()
        return read_state(said, self._work), said, parse_retry_after(answer.headers, now=time.time())

    def _failure(self, work: str, state: State, answer: Any) -> ServiceError:
        said = error_text(answer, self.settings.answer.error_at) or "no reason given"
        text = f"work {work} is {state.word!r} in the service: {said}"
        hidden = Redactor(auth_secrets(self.auth())).text(text)
        return ServiceError(hidden, retry=state.phase == "failed")

    async def _cancel(self, work: str) -> None:
        if self._work.cancel_path is None:
            log.warning("rest.goes_on", work=work, why="the settings have no cancel_path")
            return
        await self.http.request(
            self._work.cancel_method,
            with_id(self._work.cancel_path, work),
            idempotent=True,
            expect="any",
            timeout=self._work.cleanup_timeout,
        )

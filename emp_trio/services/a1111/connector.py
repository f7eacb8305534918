"""``A1111WebSocketConnector``: images by AUTOMATIC1111's web UI (A1111 reference 10; connector reference 6)."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, ClassVar, Final

import msgspec
import structlog
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import EmpTrioError, ServiceError
from emp_trio.jobs import Job, JobResult, SavedAsset
from emp_trio.offload import off_loop, weight
from emp_trio.protocols.auth import Auth
from emp_trio.protocols.fetch import Fetches, FetchSettings
from emp_trio.protocols.http import Http, HttpSettings
from emp_trio.protocols.limits import Limits, LimitsSettings
from emp_trio.protocols.saves_assets import SAVING, Generated, SavesAssets
from emp_trio.secrets import excerpt
from emp_trio.services.a1111.answers import kept_info, read_answer
from emp_trio.services.a1111.calls import Calls
from emp_trio.services.a1111.checkpoints import check_made_by, find_checkpoint
from emp_trio.services.a1111.errors import describe_error, is_out_of_memory
from emp_trio.services.a1111.generation import generate, stop_earlier
from emp_trio.services.a1111.payload import (
    A1111Request,
    Endpoint,
    read_payload,
    task_id,
    unknown_fields,
    with_images,
)
from emp_trio.services.a1111.settings import A1111Settings, located
from emp_trio.services.a1111.status import Meter, trouble_in
from emp_trio.services.address import auth_of
from emp_trio.services.billing import counted
from emp_trio.services.connector import Connector, Health, ServiceFeatures
from emp_trio.services.inputs import input_file
from emp_trio.services.outputs import Output, decoded_files
from emp_trio.services.probing import not_told, probe
from emp_trio.services.redaction import kept_copy
from emp_trio.services.results import asset_data, saved_asset
from emp_trio.settings import Env

log = structlog.get_logger(__name__)

_ASKING: Final = 5.0  # progress when the request is sent
_LOOK_BACK: Final = 3  # earlier attempts whose work is looked for


class A1111WebSocketConnector(Http, Limits, Fetches, SavesAssets, Connector["A1111WebSocketConnector.Settings"]):
    """Images from text (``txt2img``) and from images (``img2img``).

    The name is the fleet's; what it uses is the REST API, as the web UI's socket can't be relied on (A1111 reference
    10.6). One job runs at a time on each server. The answer of a call is the only place where its images are, so a
    next attempt begins anew, after stopping what is left of an earlier one.
    """

    service_type: ClassVar[str] = "a1111"
    service_features: ClassVar[ServiceFeatures] = ServiceFeatures(cancellation=True)

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """Settings of A1111. ``base_url`` may say all of scheme, host, path and query, as of a proxy."""

        a1111: A1111Settings = A1111Settings()
        http: Annotated[HttpSettings, Env(base_url="${A1111_BASE_URL:-}")] = HttpSettings(
            base_url="", max_response_bytes=512 * 2**20
        )
        limits: LimitsSettings = LimitsSettings(max_concurrent_jobs=1)
        fetch: FetchSettings = FetchSettings()

    def __init__(self, settings: Settings, connector_context: ConnectorContext) -> None:
        super().__init__(located(settings), connector_context)
        self._fields: dict[Endpoint, frozenset[str] | None] = {}

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Entered when the connector starts."""
        self.calls = Calls(self.http, self._a1111)
        yield

    def auth(self) -> Auth:
        """The server's credentials."""
        return auth_of(self._a1111)

    def describe_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
        """Errors as A1111 says them."""
        return describe_error(status, headers, body)

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        """Run one attempt.

        Raises:
            InvalidJob: the payload asks for nothing that can be made, or an input image can't be used.
            ServiceError: A1111 refused, failed, used another model, or is out of reach.
            AssetError: an image could not be saved; it is kept for the next attempt.
            trio.Cancelled: after the generation was interrupted.
        """
        request = read_payload(job.payload, restore_model=self._a1111.restore_model)
        return await self.assets.produce(job, context, make=lambda: self._make(request, job, context), result=_result)

    async def health(self) -> Health:
        """Whether the server answers, and its memory is in order. One that does not know the question is asked for its
        models: without those no job can run."""
        path = self._a1111.health_path
        if path != "/sdapi/v1/memory":
            return await probe(self.http, path, timeout=self._a1111.call_timeout)
        try:
            trouble = trouble_in(await self.calls.memory())
        except EmpTrioError as error:
            silent = not_told(error)
            return Health(healthy=False, detail=error.message) if silent is None else await self._has_models(silent)
        return Health(healthy=not trouble, detail=trouble)

    async def _has_models(self, silent: Health) -> Health:
        try:
            await self.calls.checkpoints()
        except EmpTrioError as error:
            return Health(healthy=False, detail=error.message)
        return silent

    async def models(self) -> list[str]:
        """Names of the server's models."""
        return [entry.model_name or entry.title for entry in await self.calls.checkpoints()]

    @property
    def _a1111(self) -> A1111Settings:
        return self.settings.a1111

    async def _make(self, request: A1111Request, job: Job, context: AttemptContext) -> Generated:
        body = with_images(request, await self._encoded(request))
        task = body["force_task_id"] = task_id(job.id, job.attempt)
        async with self.limiter.limit():
            wanted = None
            if request.checkpoint is not None:
                wanted = find_checkpoint(request.checkpoint, await self.calls.checkpoints())
                body["override_settings"] = body["override_settings"] | {"sd_model_checkpoint": wanted.title}
            warnings = [*request.warnings, *await self._unknown(request.endpoint, body)]
            earlier = range(max(1, job.attempt - _LOOK_BACK), job.attempt)
            await stop_earlier(self.calls, self._a1111, [task_id(job.id, number) for number in earlier])
            async with counted(job, context, ahead=False):
                context.report(_ASKING, f"asking A1111 for {request.endpoint}")
                said = await self._ask(request.endpoint, task, body, context)
                read = partial(read_answer, said, script=_has_script(body), asked=body)
                answer = await off_loop(weight(said), read)
                named = wanted is None or check_made_by(answer.info, wanted)
                had = await decoded_files([Output(source=text) for text in answer.images], images=True)
                warnings += (*answer.warnings, *had.warnings)
        if not named:
            warnings.append("A1111 does not say which model it has used")
        for warning in warnings:
            log.warning(warning)
        facts = {
            "task_id": task,
            "endpoint": request.endpoint,
            "info": await off_loop(weight(answer.info), kept_info, answer.info),
            "model_used": answer.info.get("sd_model_name") or (wanted.title if wanted is not None else None),
            "warnings": warnings,
            "request": await kept_copy(body),
        }
        return Generated(files=had.files, data=facts)

    async def _ask(self, endpoint: Endpoint, task: str, body: dict[str, Any], context: AttemptContext) -> Any:
        meter = Meter(_ASKING, SAVING)
        try:
            return await generate(
                self.calls, self._a1111, task_id=task, endpoint=endpoint, body=body, context=context, meter=meter
            )
        except ServiceError as error:
            if is_out_of_memory(error):
                error.maybe_started = False  # it has ended: trying again is not doing it twice
            raise

    async def _encoded(self, request: A1111Request) -> dict[Any, str]:
        """Every input image as base64, each had once."""
        encoded: dict[Any, str] = {}
        for source in request.images:
            if not isinstance(source, str) or source not in encoded:
                file = await input_file(self.fetcher, source)
                encoded[source] = (await trio.to_thread.run_sync(base64.b64encode, file.data)).decode()
        return encoded

    async def _unknown(self, endpoint: Endpoint, body: dict[str, Any]) -> list[str]:
        """A warning about parameters that the server would ignore without a word."""
        if endpoint not in self._fields:
            try:
                self._fields[endpoint] = await self.calls.documented_fields(endpoint)
            except ServiceError as error:
                log.debug("a1111.schema_unknown", error=error.message)
        names = unknown_fields(body, self._fields.get(endpoint))
        return [f"this A1111 has no parameter {excerpt(', '.join(names), 200)} and ignores it"] if names else []


def _has_script(body: Mapping[str, Any]) -> bool:
    return bool(body.get("script_name"))


def _result(facts: dict[str, Any], saved: list[SavedAsset]) -> JobResult:
    info = facts["info"]
    data: dict[str, Any] = asset_data(saved[0]) | {
        "images": [asset.cdn_url for asset in saved],
        "seeds": info.get("all_seeds"),
        "model_used": facts["model_used"],
        "info": info,
    }
    metadata: dict[str, Any] = {"endpoint": facts["endpoint"], "saved_asset": saved_asset(saved[0])}
    if facts["warnings"]:
        metadata["warnings"] = facts["warnings"]
    return JobResult(
        success=True,
        data=data,
        metadata=metadata,
        output_files=tuple(asset.output_file() for asset in saved),
        service_metadata={
            "service_version": "a1111",
            "service_type": A1111WebSocketConnector.service_type,
            "service_job_id": facts["task_id"],
            "model_used": facts["model_used"],
        },
        raw_request_payload=facts["request"],
    )

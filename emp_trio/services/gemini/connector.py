"""``GeminiConnector``: a prompt, and images beside it, become an image (Gemini reference A)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, ClassVar, TypeAlias

import msgspec
import structlog

from emp_trio.attempt import AttemptContext
from emp_trio.errors import ServiceError
from emp_trio.jobs import Job, JobResult, SavedAsset
from emp_trio.offload import off_loop, weight
from emp_trio.protocols.fetch import Fetches, FetchSettings
from emp_trio.protocols.http import Http, HttpSettings
from emp_trio.protocols.http.paths import segment
from emp_trio.protocols.limits import Limits, LimitsSettings
from emp_trio.protocols.polling import Polling, PollingSettings
from emp_trio.protocols.saves_assets import Generated, SavesAssets
from emp_trio.services.billing import calls_before, counted
from emp_trio.services.connector import Connector, ServiceFeatures
from emp_trio.services.gemini.answers import Answer, read_generated
from emp_trio.services.gemini.api import GeminiApi
from emp_trio.services.gemini.bodies import generate_content_body, interaction_body, only_generate_content
from emp_trio.services.gemini.images import shown, with_inputs
from emp_trio.services.gemini.interactions import run_interaction
from emp_trio.services.gemini.payload import Asked, read_payload
from emp_trio.services.gemini.scrub import scrubbed
from emp_trio.services.gemini.settings import BASE_URL, HTTP, MAX_RETRIES, POLLING, TIMEOUT, Api, GeminiSettings
from emp_trio.services.outputs import Output, OutputFiles, output_files
from emp_trio.services.results import asset_data, saved_asset
from emp_trio.settings import Env

log = structlog.get_logger(__name__)

_Inputs: TypeAlias = Callable[[], Awaitable[Asked]]
_Made: TypeAlias = tuple[Answer, OutputFiles]


class GeminiConnector(GeminiApi, Http, Limits, Polling, Fetches, SavesAssets, Connector["GeminiConnector.Settings"]):
    """Images by Gemini.

    A request runs as an interaction in the background, which a next attempt adopts instead of paying again; or by
    ``generateContent``, where the settings or the job say so, where only that has a place for what is asked, or where
    the server has no interactions. Words instead of an image are a refusal. All images of an answer are saved; the
    last is the result.
    """

    service_type: ClassVar[str] = "gem_nano_banana"
    service_features: ClassVar[ServiceFeatures] = ServiceFeatures(job_status=True, cancellation=True)

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """Settings of the Gemini connector; ``http.timeout`` is that of one ``generateContent``, with its retries."""

        gemini: GeminiSettings
        http: Annotated[HttpSettings, Env(base_url=BASE_URL, max_retries=MAX_RETRIES, timeout=TIMEOUT)] = HTTP
        polling: PollingSettings = POLLING
        limits: LimitsSettings = LimitsSettings()
        fetch: FetchSettings = FetchSettings()

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        """Run one attempt.

        Raises:
            InvalidJob: there is nothing to draw, or an input image can't be used.
            Refused: Gemini declined, or answered in words.
            ServiceError: Gemini failed, or is out of reach.
            AssetError: an image could not be saved; it is kept for the next attempt.
            trio.Cancelled: after the interaction was cancelled upstream, where ``context.stop_remote_work`` says so.
        """
        asked = read_payload(
            job.payload,
            api=self.settings.gemini.api,
            configured=self.settings.gemini.model,
            in_address=self.client.address.model,
        )
        return await self.assets.produce(job, context, make=lambda: self._generate(asked, job, context), result=_result)

    async def _generate(self, asked: Asked, job: Job, context: AttemptContext) -> Generated:
        approach, made, warnings = asked.api, None, list(asked.warnings)
        if approach == "interactions" and (why := only_generate_content(asked)):
            approach = "generate_content"
            warnings.append(f"generateContent is used: an interaction has no documented place for {why}")
        filled: Asked | None = None

        async def inputs() -> Asked:
            nonlocal filled
            if filled is None:
                filled = await with_inputs(self.fetcher, asked)
            return filled

        async with self.limiter.limit():
            try:
                if approach == "interactions":
                    made = await self._interaction(inputs, job, context)
                if approach == "interactions" and made is None:
                    approach = "generate_content"
                    warnings.append("generateContent is used: this server has no interactions")
                if made is None:
                    made = await self._content(inputs, job, context)
            except ServiceError as error:
                if error.status == 503 and error.retry and error.retry_after is None:
                    error.retry_after = self.settings.gemini.overload_wait
                raise
        answer, had = made
        warnings += (*answer.warnings, *had.warnings)
        for warning in warnings:
            log.warning(warning)
        facts = {
            "id": answer.id,
            "approach": approach,
            "api_version": self.client.address.root.rpartition("/")[2],
            "model": answer.model or asked.model,
            "text": answer.text,
            "usage": answer.usage,
            "warnings": warnings,
            "calls_before": calls_before(job),
            "raw": answer.raw,
            "request": await off_loop(weight(asked), _request, asked, approach),
        }
        return Generated(files=had.files, data=facts)

    async def _interaction(self, inputs: _Inputs, job: Job, context: AttemptContext) -> _Made | None:
        async def body() -> dict[str, Any]:
            return interaction_body(await inputs())

        async with counted(job, context, ahead=False):  # also one that ended without an image, or not in time
            answer = await run_interaction(self.client, self.poller, job, context, body)
            return (answer, await self._files(answer)) if answer is not None else None

    async def _content(self, inputs: _Inputs, job: Job, context: AttemptContext) -> _Made:
        """One ``generateContent``. There is no id by which a next attempt could adopt it, so it is counted ahead."""
        asked = await inputs()
        body = generate_content_body(asked)
        path = f"{self.client.address.root}/models/{segment(asked.model)}:generateContent"
        async with counted(job, context, ahead=True) as sending:
            context.report(10, "sending the request to Gemini")
            said = await self.http.request("POST", path, json=body, sending=sending)
            answer = await off_loop(len(said.body), read_generated, said.json())
            return answer, await self._files(answer)

    async def _files(self, answer: Answer) -> OutputFiles:
        outputs = [Output(source=image.data, media_type=image.media_type) for image in answer.images]
        return await output_files(self.http, self.fetcher, outputs, images=True)


def _request(asked: Asked, approach: Api) -> Any:
    """What was sent, without file bytes."""
    asked = shown(asked)
    body = interaction_body(asked) if approach == "interactions" else generate_content_body(asked)
    return scrubbed({"model": asked.model} | body)


def _result(facts: dict[str, Any], saved: list[SavedAsset]) -> JobResult:
    usage = facts["usage"] | {"model": facts["model"]}
    data: dict[str, Any] = asset_data(saved[-1]) | {
        "text": facts["text"] or None,
        "model_used": facts["model"],
        "usage": usage,
        "approach": facts["approach"],
        "gemini_id": facts["id"] or None,
    }
    metadata: dict[str, Any] = {
        "service": "gemini",
        "api_version": facts["api_version"],
        "saved_asset": saved_asset(saved[-1]),
        "raw_service_output": facts["raw"],
    }
    if facts["warnings"]:
        metadata["warnings"] = facts["warnings"]
    if facts["calls_before"]:
        metadata["maybe_billed_before"] = facts["calls_before"]
    return JobResult(
        success=True,
        data=data,
        metadata=metadata,
        output_files=tuple(asset.output_file() for asset in saved),
        service_metadata={
            "service_version": "gemini",
            "service_type": GeminiConnector.service_type,
            "service_job_id": facts["id"] or None,
            "model_used": facts["model"],
            "usage": usage,
        },
        raw_request_payload=facts["request"],
    )

"""``OpenAIResponsesConnector``: any request of the Responses API, run in the background and polled."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
import structlog

from emp_trio.jobs import Job, JobResult, SavedAsset
from emp_trio.progress import ProgressReporter
from emp_trio.protocols.http import Http, HttpSettings
from emp_trio.protocols.limits import Limits, LimitsSettings
from emp_trio.protocols.polling import Polling, PollingSettings
from emp_trio.protocols.saves_assets import SavesAssets
from emp_trio.services.connector import Abilities, Connector
from emp_trio.services.openai.api import OpenAIApi, list_models
from emp_trio.services.openai.background import run_background
from emp_trio.services.openai.models import is_image_model
from emp_trio.services.openai.requests import ResponsesRequest, responses_request
from emp_trio.services.openai.responses import Answer
from emp_trio.services.openai.settings import BASE_URL, MAX_RETRIES, POLLING, OpenAISettings
from emp_trio.services.redaction import redacted
from emp_trio.services.results import asset_data, saved_asset
from emp_trio.settings import Env

log = structlog.get_logger(__name__)


class OpenAIResponsesConnector(OpenAIApi, Http, Limits, Polling, SavesAssets, Connector):
    """Any OpenAI Responses request: text and pictures.

    Pictures are always saved; text is saved as ``text/plain`` unless ``payload.save_assets`` is false, and is in the
    result in any case. A response that an earlier attempt has started is adopted instead of being paid for again.
    """

    service_type: ClassVar[str] = "openai_responses"
    abilities: ClassVar[Abilities] = Abilities(job_status=True, cancellation=True)

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """Settings of the Responses connector."""

        openai: OpenAISettings
        http: Annotated[HttpSettings, Env(base_url=BASE_URL, max_retries=MAX_RETRIES)]
        polling: PollingSettings = POLLING
        limits: LimitsSettings = LimitsSettings()

    async def run(self, job: Job, progress: ProgressReporter) -> JobResult:
        """Run one attempt.

        Raises:
            InvalidJob: there is nothing to send.
            Refused: OpenAI or the model declined.
            ServiceError: OpenAI failed, or is out of reach.
            AssetError: what it made could not be saved.
            trio.Cancelled: after the response was cancelled upstream, where ``progress.stop_upstream`` says so.
        """
        request = responses_request(job.payload, job_id=job.id, default_model=self.settings.openai.model)
        for warning in request.warnings:
            log.warning(warning)
        if job.payload.get("save_assets") is not False or request.image_model is not None:
            self.toolbox.assets.check(job)  # before anything is paid
        async with self.limit():
            answer = await run_background(self, job, progress, request)
        progress.report(90, "saving the answer")
        saved = await self._save(answer, job, progress)
        progress.report(100, "done")
        return _result(request, answer, saved)

    async def models(self) -> list[str]:
        """Models of the account that can answer: all but image models."""
        return [model for model in await list_models(self) if not is_image_model(model)]

    async def _save(self, answer: Answer, job: Job, progress: ProgressReporter) -> list[SavedAsset]:
        if answer.pictures:
            return [
                await self.save_asset(picture.data, job, progress, media_type=picture.media_type, index=index)
                for index, picture in enumerate(answer.pictures)
            ]
        if job.payload.get("save_assets") is False:
            return []
        return [await self.save_asset(answer.text.encode(), job, progress, media_type="text/plain")]


def _result(request: ResponsesRequest, answer: Answer, saved: list[SavedAsset]) -> JobResult:
    data: dict[str, Any] = {
        "openai_response_id": answer.response_id,
        "model_used": answer.model,
        "usage": answer.usage,
    }
    if answer.pictures:
        data |= asset_data(saved[-1]) | {
            "text_description": answer.text or None,
            "revised_prompt": answer.pictures[-1].revised_prompt,
        }
    else:
        data |= {"content_type": "text", "text": answer.text, "text_content": answer.text}
        data |= {"mime_type": "text/plain", "saved_asset": saved_asset(saved[-1])} if saved else {}
    if answer.truncated:
        data["truncated"] = True
    metadata: dict[str, Any] = {"saved_asset": saved_asset(saved[-1])} if saved else {}
    if request.warnings:
        metadata["warnings"] = list(request.warnings)
    if answer.skipped:
        metadata["skipped_output"] = list(answer.skipped)
    return JobResult(
        success=True,
        data=data,
        metadata=metadata,
        output_files=tuple(asset.output_file() for asset in saved),
        service_metadata={
            "service_version": "openai-responses",
            "service_type": OpenAIResponsesConnector.service_type,
            "service_job_id": answer.response_id,
            "model_used": answer.model,
            "usage": answer.usage,
            "request_ids": list(answer.request_ids),
        },
        raw_request_payload=redacted(request.body),
    )

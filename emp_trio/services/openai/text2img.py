"""``OpenAIText2ImgConnector``: a prompt becomes a picture, in a background response with the image tool."""

from __future__ import annotations

import datetime
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
from emp_trio.services.openai.models import DEFAULT_IMAGE_MODEL, is_image_model
from emp_trio.services.openai.requests import ResponsesRequest, image_request
from emp_trio.services.openai.responses import Answer
from emp_trio.services.openai.settings import BASE_URL, MAX_RETRIES, POLLING, OpenAISettings
from emp_trio.services.redaction import redacted
from emp_trio.services.results import asset_data, saved_asset
from emp_trio.settings import Env

log = structlog.get_logger(__name__)


class OpenAIText2ImgConnector(OpenAIApi, Http, Limits, Polling, SavesAssets, Connector):
    """Text to image.

    A text model (``OPENAI_RESPONSES_MODEL``) calls the image tool with an image model (``OPENAI_IMAGE_MODEL``). The
    picture is always saved. Words instead of a picture are a refusal. A response that an earlier attempt has started is
    adopted instead of being paid for again.
    """

    service_type: ClassVar[str] = "image_generation"
    abilities: ClassVar[Abilities] = Abilities(job_status=True, cancellation=True)

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """Settings of text to image; ``image_model``, ``size`` and ``quality`` hold where a job does not say."""

        openai: OpenAISettings
        http: Annotated[HttpSettings, Env(base_url=BASE_URL, max_retries=MAX_RETRIES)]
        polling: PollingSettings = POLLING
        limits: LimitsSettings = LimitsSettings()
        image_model: Annotated[str, Env("${OPENAI_IMAGE_MODEL:-" + DEFAULT_IMAGE_MODEL + "}")] = DEFAULT_IMAGE_MODEL
        size: Annotated[str, Env("${OPENAI_IMAGE_SIZE:-1024x1024}")] = "1024x1024"
        quality: Annotated[str, Env("${OPENAI_IMAGE_QUALITY:-standard}")] = "standard"

    async def run(self, job: Job, progress: ProgressReporter) -> JobResult:
        """Run one attempt.

        Raises:
            InvalidJob: there is no prompt.
            Refused: OpenAI declined, or the model answered in words.
            ServiceError: OpenAI failed, or is out of reach.
            AssetError: the picture could not be saved.
            trio.Cancelled: after the response was cancelled upstream, where ``progress.stop_upstream`` says so.
        """
        request = image_request(
            job.payload,
            job_id=job.id,
            outer_model=self.settings.openai.model,
            image_model=self.settings.image_model,
            size=self.settings.size,
            quality=self.settings.quality,
            today=datetime.datetime.now(datetime.UTC).date(),
        )
        for warning in request.warnings:
            log.warning(warning)
        self.toolbox.assets.check(job)  # before anything is paid
        async with self.limit():
            answer = await run_background(self, job, progress, request)
        progress.report(90, "saving the picture")
        saved = [
            await self.save_asset(picture.data, job, progress, media_type=picture.media_type, index=index)
            for index, picture in enumerate(answer.pictures)
        ]
        progress.report(100, "done")
        return _result(request, answer, saved)

    async def models(self) -> list[str]:
        """Image models of the account."""
        return [model for model in await list_models(self) if is_image_model(model)]


def _result(request: ResponsesRequest, answer: Answer, saved: list[SavedAsset]) -> JobResult:
    picture, tool = answer.pictures[-1], request.body["tools"][0]
    data: dict[str, Any] = asset_data(saved[-1]) | {
        "model_used": answer.model,
        "image_model": request.image_model,
        "size": picture.size or tool["size"],
        "quality": picture.quality or tool["quality"],
        "revised_prompt": picture.revised_prompt,
        "openai_job_id": answer.response_id,
        "approach": "background",
        "usage": answer.usage,
    }
    metadata: dict[str, Any] = {"saved_asset": saved_asset(saved[-1])}
    if request.warnings:
        metadata["warnings"] = list(request.warnings)
    return JobResult(
        success=True,
        data=data,
        metadata=metadata,
        output_files=tuple(asset.output_file() for asset in saved),
        service_metadata={
            "service_version": "openai-image",
            "service_type": OpenAIText2ImgConnector.service_type,
            "service_job_id": answer.response_id,
            "model_used": answer.model,
            "usage": answer.usage,
            "request_ids": list(answer.request_ids),
        },
        raw_request_payload=redacted(request.body),
    )

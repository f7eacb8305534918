"""``OpenAIText2ImgConnector``: a prompt becomes a picture, in one of three ways."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, ClassVar, Final

import msgspec
import structlog

from emp_trio.errors import ServiceError
from emp_trio.jobs import Job, JobResult
from emp_trio.progress import ProgressReporter
from emp_trio.protocols.http import Http, HttpSettings
from emp_trio.protocols.limits import Limits, LimitsSettings
from emp_trio.protocols.polling import Polling, PollingSettings
from emp_trio.protocols.saves_assets import Generated, SavesAssets
from emp_trio.protocols.streaming import Streaming
from emp_trio.services.connector import Abilities, Connector
from emp_trio.services.openai.api import OpenAIApi, list_models
from emp_trio.services.openai.approaches import (
    APPROACHES,
    LISTED,
    Approach,
    choose_approaches,
    listed_approaches,
    refuses_background,
    try_approaches,
)
from emp_trio.services.openai.background import request_headers, run_background
from emp_trio.services.openai.image_options import ImageOptions, image_options, image_prompt
from emp_trio.services.openai.image_results import generated_pictures, image_result
from emp_trio.services.openai.images_api import generations_request, read_images_answer
from emp_trio.services.openai.models import DEFAULT_IMAGE_MODEL, is_image_model
from emp_trio.services.openai.previews import PreviewSettings, with_previews
from emp_trio.services.openai.requests import as_stream, image_request
from emp_trio.services.openai.responses import Answer
from emp_trio.services.openai.settings import BASE_URL, MAX_RETRIES, POLLING, OpenAISettings
from emp_trio.services.openai.stream import OnPartial, run_stream
from emp_trio.services.repeats import calls_before, counted
from emp_trio.settings import Env

log = structlog.get_logger(__name__)

_ALL: Final = ",".join(APPROACHES)
_Made = tuple[Answer, dict[str, Any]]  # an answer, and the body of the request that brought it


class OpenAIText2ImgConnector(OpenAIApi, Http, Streaming, Limits, Polling, SavesAssets, Connector):
    """Text to image.

    In the order of ``approaches``: a text model (``OPENAI_RESPONSES_MODEL``) calls the image tool with an image model
    (``OPENAI_IMAGE_MODEL``), in a background response that is polled, or in a stream with partial pictures; or the
    image model is asked by the Images API. The next one's turn comes only where one is not to be had
    (:func:`~emp_trio.services.openai.approaches.next_approach`). Pictures are always saved; partial ones are never
    results. Words instead of a picture are a refusal. A response that an earlier attempt has started is adopted, and
    pictures that an earlier attempt could not save are uploaded, instead of being paid for again.
    """

    service_type: ClassVar[str] = "image_generation"
    abilities: ClassVar[Abilities] = Abilities(job_status=True, cancellation=True)

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """Settings of text to image.

        Attributes:
            image_model, size, quality: where a job does not say.
            approaches: the ways to a picture, in their order, with commas between them; a job may choose one of them
                (``payload.approach``).
            image_timeout: seconds for a call of the Images API, which is silent until the picture is done.
        """

        openai: OpenAISettings
        http: Annotated[HttpSettings, Env(base_url=BASE_URL, max_retries=MAX_RETRIES)]
        polling: PollingSettings = POLLING
        limits: LimitsSettings = LimitsSettings()
        preview: PreviewSettings = PreviewSettings()
        image_model: Annotated[str, Env("${OPENAI_IMAGE_MODEL:-" + DEFAULT_IMAGE_MODEL + "}")] = DEFAULT_IMAGE_MODEL
        size: Annotated[str, Env("${OPENAI_IMAGE_SIZE:-1024x1024}")] = "1024x1024"
        quality: Annotated[str, Env("${OPENAI_IMAGE_QUALITY:-standard}")] = "standard"
        approaches: Annotated[str, msgspec.Meta(pattern=LISTED), Env("${OPENAI_IMAGE_APPROACHES:-" + _ALL + "}")] = _ALL
        image_timeout: Annotated[float, msgspec.Meta(gt=0)] = 300.0

    async def run(self, job: Job, progress: ProgressReporter) -> JobResult:
        """Run one attempt.

        Raises:
            InvalidJob: there is no prompt, or what is asked for can't be.
            Refused: OpenAI declined, or the model answered in words.
            ServiceError: OpenAI failed, or is out of reach.
            AssetError: the picture could not be saved.
            trio.Cancelled: after the response was cancelled upstream, where ``progress.stop_upstream`` says so.
        """
        prompt = image_prompt(job.payload, "prompt", "description")
        options = image_options(
            job.payload,
            image_model=self.settings.image_model,
            size=self.settings.size,
            quality=self.settings.quality,
            today=datetime.datetime.now(datetime.UTC).date(),
        )
        order = choose_approaches(listed_approaches(self.settings.approaches), job.payload.get("approach"), options)
        for warning in options.warnings:
            log.warning(warning)
        self.toolbox.assets.check(job)  # before anything is paid

        async def make() -> Generated:
            async with self.limit():
                return await self._make(job, progress, prompt, options, order)

        generated = await self.generated(job, progress, make)
        progress.report(90, "saving the picture")
        saved = await self.save_generated(generated, job, progress)
        progress.report(100, "done")
        return image_result(generated, saved)

    async def models(self) -> list[str]:
        """Image models of the account."""
        return [model for model in await list_models(self) if is_image_model(model)]

    async def _make(
        self, job: Job, progress: ProgressReporter, prompt: str, options: ImageOptions, order: tuple[Approach, ...]
    ) -> Generated:
        request = image_request(
            prompt,
            options,
            job_id=job.id,
            outer_model=self.settings.openai.model,
            metadata=job.payload.get("metadata"),
        )
        in_background = True

        async def background() -> _Made:
            nonlocal in_background
            try:
                return await run_background(self, job, progress, request), request.body
            except ServiceError as error:
                in_background = not refuses_background(error)
                raise

        async def stream(*, background: bool) -> _Made:
            partials = 0 if options.fields.get("output_format") == "gif" else self.settings.preview.partial_images
            streamed = as_stream(request, background=background, partial_images=partials)

            async def follow(on_partial: OnPartial) -> Answer:
                return await run_stream(self, job, progress, streamed, on_partial=on_partial)

            return await with_previews(self, job, progress, self.settings.preview, follow), streamed.body

        async def streaming() -> _Made:
            if in_background:  # a stream that can be resumed, and adopted
                try:
                    return await stream(background=True)
                except ServiceError as error:
                    if not refuses_background(error):
                        raise
            return await stream(background=False)

        async def direct() -> _Made:
            body = generations_request(prompt, options)
            progress.report(20, "sending the request to OpenAI's Images API")
            async with counted(job, progress, ahead=True):
                answer = await self.request(
                    "POST",
                    "/images/generations",
                    json=body,
                    headers=request_headers(self.settings.openai, job),
                    timeout=self.settings.image_timeout,
                    read_timeout=self.settings.image_timeout,
                    max_bytes=self.settings.http.max_response_bytes * options.n,
                )
                found = read_images_answer(answer.json(), image_model=options.model)
            return msgspec.structs.replace(found, request_ids=tuple(filter(None, (answer.request_id,)))), body

        (answer, body), attempts = await try_approaches(
            order, {"background": background, "streaming": streaming, "direct": direct}
        )
        return await generated_pictures(
            answer,
            options,
            request=body,
            service_type=self.service_type,
            data={"approach": attempts[-1]["approach"], "attempts": attempts},
            metadata={"maybe_billed_before": calls_before(job)} if calls_before(job) else None,
        )

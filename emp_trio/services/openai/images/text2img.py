"""``OpenAIText2ImgConnector``: a prompt becomes an image, in one of three ways."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, ClassVar, Final

import msgspec
import structlog

from emp_trio.attempt import AttemptContext
from emp_trio.errors import ServiceError
from emp_trio.jobs import Job, JobResult
from emp_trio.protocols.fetch import Fetches, FetchSettings
from emp_trio.protocols.http import Http, HttpSettings
from emp_trio.protocols.limits import Limits, LimitsSettings
from emp_trio.protocols.polling import Polling, PollingSettings
from emp_trio.protocols.saves_assets import AssetSaver, Generated, SavesAssets
from emp_trio.protocols.streaming import EventStream, Streaming
from emp_trio.services.billing import calls_before, counted
from emp_trio.services.connector import Connector, ServiceFeatures
from emp_trio.services.openai.api import OpenAIApi
from emp_trio.services.openai.image_options import ImageOptions, image_options, image_prompt
from emp_trio.services.openai.images.approaches import (
    APPROACHES,
    LISTED,
    Approach,
    choose_approaches,
    listed_approaches,
    refuses_background,
    try_approaches,
)
from emp_trio.services.openai.images.images_api import generations_request, read_images_answer
from emp_trio.services.openai.images.results import generated_images, image_result
from emp_trio.services.openai.models import DEFAULT_IMAGE_MODEL, is_image_model
from emp_trio.services.openai.responses.answer import Answer
from emp_trio.services.openai.responses.background import ResponsesClient, request_headers, run_background
from emp_trio.services.openai.responses.events import ResponseStream
from emp_trio.services.openai.responses.request import as_stream, image_request
from emp_trio.services.openai.responses.stream import run_stream
from emp_trio.services.openai.settings import BASE_URL, MAX_RETRIES, POLLING, OpenAISettings
from emp_trio.services.previews import Previews, PreviewSettings, with_previews
from emp_trio.settings import Env

log = structlog.get_logger(__name__)

_ALL: Final = ",".join(APPROACHES)


class OpenAIText2ImgConnector(
    OpenAIApi, Http, Streaming, Limits, Polling, Fetches, SavesAssets, Connector["OpenAIText2ImgConnector.Settings"]
):
    """Text to image.

    In the order of ``approaches``: a text model (``OPENAI_RESPONSES_MODEL``) calls the image tool with an image model
    (``OPENAI_IMAGE_MODEL``), in a background response that is polled, or in a stream with partial images; or the
    image model is asked by the Images API. The next one's turn comes only where one is not to be had
    (:func:`~emp_trio.services.openai.images.approaches.next_approach`). Images are always saved; partial ones are never
    results. Words instead of an image are a refusal. A response that an earlier attempt has started is adopted, and
    images that an earlier attempt could not save are uploaded, instead of being paid for again.
    """

    service_type: ClassVar[str] = "image_generation"
    service_features: ClassVar[ServiceFeatures] = ServiceFeatures(job_status=True, cancellation=True)

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """Settings of text to image.

        Attributes:
            image_model, size, quality: where a job does not say.
            approaches: the ways to an image, in their order, with commas between them; a job may choose one of them
                (``payload.approach``).
            partial_images: how many are asked for by the streaming approach; each costs 100 output tokens
                (OpenAI reference 7).
            image_timeout: seconds for a call of the Images API, which is silent until the image is done.
        """

        openai: OpenAISettings
        http: Annotated[HttpSettings, Env(base_url=BASE_URL, max_retries=MAX_RETRIES)]
        polling: PollingSettings = POLLING
        limits: LimitsSettings = LimitsSettings()
        preview: PreviewSettings = PreviewSettings()
        fetch: FetchSettings = FetchSettings()
        image_model: Annotated[str, Env("${OPENAI_IMAGE_MODEL:-" + DEFAULT_IMAGE_MODEL + "}")] = DEFAULT_IMAGE_MODEL
        size: Annotated[str, Env("${OPENAI_IMAGE_SIZE:-1024x1024}")] = "1024x1024"
        quality: Annotated[str, Env("${OPENAI_IMAGE_QUALITY:-standard}")] = "standard"
        approaches: Annotated[str, msgspec.Meta(pattern=LISTED), Env("${OPENAI_IMAGE_APPROACHES:-" + _ALL + "}")] = _ALL
        partial_images: Annotated[int, msgspec.Meta(ge=0, le=3)] = 2
        image_timeout: Annotated[float, msgspec.Meta(gt=0)] = 300.0

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        """Run one attempt.

        Raises:
            InvalidJob: there is no prompt, or what is asked for can't be.
            Refused: OpenAI declined, or the model answered in words.
            ServiceError: OpenAI failed, or is out of reach.
            AssetError: the image could not be saved.
            trio.Cancelled: after the response was cancelled upstream, where ``context.stop_remote_work`` says so.
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

        async def make() -> Generated:
            client = ResponsesClient(http=self.http, poller=self.poller, openai=self.settings.openai)
            calls = _ImageCalls(
                client,
                self.streaming,
                self.assets,
                self.settings,
                job=job,
                context=context,
                prompt=prompt,
                options=options,
            )
            async with self.limiter.limit():
                drawn, attempts = await try_approaches(order, calls.ways)
            return await generated_images(
                self.http,
                self.fetcher,
                drawn.answer,
                options,
                request=drawn.body,
                service_type=self.service_type,
                data={"approach": attempts[-1]["approach"], "attempts": attempts},
                metadata={"maybe_billed_before": calls_before(job)} if calls_before(job) else None,
            )

        return await self.assets.produce(job, context, make=make, result=image_result)

    async def models(self) -> list[str]:
        """Image models of the account."""
        return [model for model in await self.model_ids() if is_image_model(model)]


class _Drawn(msgspec.Struct, frozen=True, kw_only=True):
    """An answer with images, and the body of the request that brought it."""

    answer: Answer
    body: dict[str, Any]


class _ImageCalls:
    """One attempt. Each way raises ServiceError, Refused or trio.Cancelled as the functions do that it calls.

    Args:
        client, streaming: the API.
        saver: saves previews.
        settings: of the connector.
        prompt, options: what the job wants.
    """

    def __init__(
        self,
        client: ResponsesClient,
        streaming: EventStream,
        saver: AssetSaver,
        settings: OpenAIText2ImgConnector.Settings,
        *,
        job: Job,
        context: AttemptContext,
        prompt: str,
        options: ImageOptions,
    ) -> None:
        self._client = client
        self._streaming = streaming
        self._saver = saver
        self._settings = settings
        self._job = job
        self._progress = context
        self._prompt = prompt
        self._options = options
        self._in_background = True  # until the service says that it can't
        self._request = image_request(
            prompt,
            options,
            job_id=job.id,
            outer_model=self._client.openai.model,
            metadata=job.payload.get("metadata"),
        )

    @property
    def ways(self) -> dict[Approach, Callable[[], Awaitable[_Drawn]]]:
        """The calls by the names of their approaches."""
        return {"background": self.background, "streaming": self.streaming, "direct": self.direct}

    async def background(self) -> _Drawn:
        """A background response that is polled, or the one that an earlier attempt has started."""
        try:
            answer = await run_background(self._client, self._job, self._progress, self._request)
        except ServiceError as error:
            self._in_background = not refuses_background(error)
            raise
        return _Drawn(answer=answer, body=self._request.body)

    async def streaming(self) -> _Drawn:
        """A streamed response: in the background as well, so that it can be resumed and adopted, where the service has
        that."""
        if self._in_background:
            try:
                return await self._stream(background=True)
            except ServiceError as error:
                if not refuses_background(error):
                    raise
        return await self._stream(background=False)

    async def _stream(self, *, background: bool) -> _Drawn:
        partials = 0 if self._options.fields.get("output_format") == "gif" else self._settings.partial_images
        request = as_stream(self._request, background=background, partial_images=partials)

        async def follow(previews: Previews) -> Answer:
            def show(state: ResponseStream) -> None:
                if state.partial is not None:
                    previews.take(state.partial)

            return await run_stream(self._client, self._streaming, self._job, self._progress, request, on_partial=show)

        answer = await with_previews(self._saver, self._job, self._progress, self._settings.preview, follow)
        return _Drawn(answer=answer, body=request.body)

    async def direct(self) -> _Drawn:
        """The Images API. Its call has no id to find it by: where an attempt ends in the middle, the next one makes it
        again, and a third one is not made."""
        body = generations_request(self._prompt, self._options)
        seconds = self._settings.image_timeout
        self._progress.report(20, "sending the request to OpenAI's Images API")
        async with counted(self._job, self._progress, ahead=True) as sending:
            answer = await self._client.http.request(
                "POST",
                "/images/generations",
                json=body,
                headers=request_headers(self._client.openai, self._job),
                timeout=seconds,
                read_timeout=seconds,
                max_bytes=self._client.http.settings.max_response_bytes * self._options.n,
                sending=sending,
            )
            found = read_images_answer(answer.json(), image_model=self._options.model)
        found = msgspec.structs.replace(found, request_ids=tuple(filter(None, (answer.request_id,))))
        return _Drawn(answer=found, body=body)

"""``OpenAIImg2ImgConnector``: images and a prompt become another image."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
import structlog
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.jobs import Job, JobResult
from emp_trio.protocols.fetch import Fetcher, Fetches, FetchSettings
from emp_trio.protocols.http import Http, HttpSettings
from emp_trio.protocols.limits import Limits, LimitsSettings
from emp_trio.protocols.polling import Polling, PollingSettings
from emp_trio.protocols.saves_assets import Generated, SavesAssets
from emp_trio.services.billing import calls_before, counted
from emp_trio.services.connector import Connector, ServiceFeatures
from emp_trio.services.inputs import IMAGES, input_file
from emp_trio.services.openai.api import OpenAIApi
from emp_trio.services.openai.images.approaches import Approach, choose_approaches, try_approaches
from emp_trio.services.openai.images.images_api import read_images_answer
from emp_trio.services.openai.images.img2img_request import (
    EditJob,
    Input,
    Inputs,
    Source,
    edit_job,
    edit_response,
    edit_response_record,
    edits_request,
)
from emp_trio.services.openai.images.results import generated_images, image_result
from emp_trio.services.openai.models import DEFAULT_IMAGE_MODEL, DEFAULT_TEXT_MODEL, is_image_model
from emp_trio.services.openai.responses.answer import Answer
from emp_trio.services.openai.responses.background import BackgroundRun, ResponsesClient, request_headers
from emp_trio.services.openai.responses.request import ResponsesRequest
from emp_trio.services.openai.settings import BASE_URL, MAX_RETRIES, POLLING, OpenAISettings
from emp_trio.services.remote_work import run_announced_work
from emp_trio.settings import Env

log = structlog.get_logger(__name__)

_APPROACHES: Final = ("background", "direct")

_ACCEPTED: Final = IMAGES - {"image/gif"}
_MASKS: Final = frozenset({"image/png"})

# The second name is the fleet's, where it has always meant the text model.
_OUTER_MODEL: Final = "${OPENAI_RESPONSES_MODEL:-${OPENAI_IMG2IMG_MODEL:-" + DEFAULT_TEXT_MODEL + "}}"


class OpenAIImg2ImgConnector(
    OpenAIApi, Http, Limits, Polling, Fetches, SavesAssets, Connector["OpenAIImg2ImgConnector.Settings"]
):
    """Image to image.

    Two ways: a background response in which a text model (``OPENAI_RESPONSES_MODEL``) edits the images with the image
    tool, and the Images API (``direct``), which alone makes several images at once. Both take images as data URLs,
    base64, URLs and ids of files at OpenAI, and a mask. ``payload.approach`` decides, then ``approach``; the other way
    is taken only where the first is not to be had here, so that nothing can have been billed. All inputs are looked at
    before anything is paid. What is made is always saved, and is not made again where only the upload failed.
    """

    service_type: ClassVar[str] = "image_generation"
    service_features: ClassVar[ServiceFeatures] = ServiceFeatures(job_status=True, cancellation=True)

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """Settings of image to image.

        Attributes:
            image_model, size, quality: hold where a job does not say; ``auto`` follows the first image.
            approaches: the ways, in their order; a job may choose one of them (``payload.approach``).
            image_timeout: seconds for a call of the Images API, which is silent until the image is done.
        """

        openai: Annotated[OpenAISettings, Env(model=_OUTER_MODEL)]
        http: Annotated[HttpSettings, Env(base_url=BASE_URL, max_retries=MAX_RETRIES)]
        polling: PollingSettings = POLLING
        limits: LimitsSettings = LimitsSettings()
        fetch: FetchSettings = FetchSettings()
        image_model: Annotated[str, Env("${OPENAI_IMAGE_MODEL:-" + DEFAULT_IMAGE_MODEL + "}")] = DEFAULT_IMAGE_MODEL
        size: str = "auto"
        quality: str = "auto"
        approaches: Annotated[tuple[Literal["background", "direct"], ...], msgspec.Meta(min_length=1)] = _APPROACHES
        image_timeout: Annotated[float, msgspec.Meta(gt=0)] = 300.0

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        """Run one attempt.

        Raises:
            InvalidJob: there is no prompt or no image, or an input is not what it should be.
            Refused: OpenAI declined, or the model answered in words.
            InputUnavailable: the server of an input failed.
            ServiceError: OpenAI failed, or is out of reach.
            AssetError: an image could not be saved.
            trio.Cancelled: after a background response was cancelled upstream, where ``context.stop_remote_work`` says
                so. A call of the Images API can't be cancelled and may be billed all the same.
        """
        wanted = edit_job(
            job.payload,
            image_model=self.settings.image_model,
            size=self.settings.size,
            quality=self.settings.quality,
            today=datetime.datetime.now(datetime.UTC).date(),
        )
        order = choose_approaches(self.settings.approaches, job.payload.get("approach"), wanted.options)

        async def make() -> Generated:
            async with self.limiter.limit():
                return await self._make(job, context, wanted, order)

        return await self.assets.produce(job, context, make=make, result=image_result)

    async def models(self) -> list[str]:
        """Image models of the account."""
        return [model for model in await self.model_ids() if is_image_model(model)]

    async def _make(self, job: Job, context: AttemptContext, wanted: EditJob, order: tuple[Approach, ...]) -> Generated:
        calls = _EditCalls(
            ResponsesClient(http=self.http, poller=self.poller, openai=self.settings.openai),
            self.fetcher,
            image_timeout=self.settings.image_timeout,
            job=job,
            context=context,
            wanted=wanted,
        )
        edited, attempts = await try_approaches(order, {"background": calls.background, "direct": calls.direct})
        options = msgspec.structs.replace(wanted.options, warnings=(*wanted.options.warnings, *edited.warnings))
        for warning in options.warnings:
            log.warning(warning)
        return await generated_images(
            self.http,
            self.fetcher,
            edited.answer,
            options,
            request=edited.record,
            service_type=self.service_type,
            data={
                "approach": attempts[-1]["approach"],
                "attempts": attempts,
                "original_prompt": wanted.prompt,
                "reference_images_count": len(wanted.images),
            },
            metadata={"maybe_billed_before": calls_before(job)} if calls_before(job) else None,
        )


class _Edited(msgspec.Struct, frozen=True, kw_only=True):
    """An answer with images.

    Attributes:
        record: the request, without the bytes of images.
        warnings: what was left out of it.
    """

    answer: Answer
    record: dict[str, Any]
    warnings: tuple[str, ...] = ()


class _EditCalls:
    """One attempt. Each way raises InvalidJob where an input can't be had or is no image that OpenAI takes: then
    nothing has been paid.

    Args:
        client: the API.
        fetcher: gets the inputs.
        image_timeout: seconds for a call of the Images API.
        wanted: what the job wants.
    """

    def __init__(
        self,
        client: ResponsesClient,
        fetcher: Fetcher,
        *,
        image_timeout: float,
        job: Job,
        context: AttemptContext,
        wanted: EditJob,
    ) -> None:
        self.client = client
        self.fetcher = fetcher
        self.image_timeout = image_timeout
        self.job = job
        self.progress = context
        self.wanted = wanted
        self._inputs: Inputs | None = None

    async def background(self) -> _Edited:
        """A background response with the image tool, or the one that an earlier attempt has started. That one needs no
        inputs: their URLs may be gone.

        Raises:
            Refused, ServiceError, trio.Cancelled: as
                :func:`~emp_trio.services.openai.responses.background.run_background`.
        """
        outer_model = self.client.openai.model
        inputs = Inputs(images=self.wanted.images, mask=self.wanted.mask)
        unsent = ResponsesRequest(body={}, image_wanted=True, image_model=self.wanted.options.model)
        run = BackgroundRun(self.client, self.job, self.progress, unsent)

        async def prepare() -> None:
            nonlocal inputs
            inputs = await self._get_inputs()

            def build() -> ResponsesRequest:
                return edit_response(self.wanted, inputs, job_id=self.job.id, outer_model=outer_model)

            run.request = await trio.to_thread.run_sync(build)

        async def usable(response_id: str) -> bool:
            adopted = await run.usable(response_id)
            if not adopted:
                await prepare()
            return adopted

        earlier = (self.job.checkpoint or {}).get("response_id")
        if not (isinstance(earlier, str) and earlier):  # else usable() is asked first
            await prepare()
        answer = await run_announced_work(
            self.job,
            self.progress,
            key="response_id",
            usable=usable,
            run=run.to_the_end,
            wait=run.wait,
            cancel=run.cancel,
            grace=run.openai.cleanup_timeout,
        )
        record = edit_response_record(self.wanted, inputs, job_id=self.job.id, outer_model=outer_model)
        return _Edited(answer=answer, record=record)

    async def direct(self) -> _Edited:
        """The Images API. Its call has no id to find it by: where an attempt ends in the middle, the next one makes it
        again, once per job (:mod:`emp_trio.services.billing`).

        Raises:
            Refused: OpenAI declined.
            ServiceError: OpenAI failed, or ``image_timeout`` ran out.
            trio.Cancelled: the connection is closed; the call may be billed all the same.
        """
        request = await trio.to_thread.run_sync(edits_request, self.wanted, await self._get_inputs())
        self.progress.report(20, "sending the images to OpenAI")
        seconds = self.image_timeout
        async with counted(self.job, self.progress, ahead=True) as sending:
            answer = await self.client.http.request(
                "POST",
                "/images/edits",
                content=request.content,
                headers=request_headers(self.client.openai, self.job) | {"content-type": request.content_type},
                timeout=seconds,
                read_timeout=seconds,
                max_bytes=self.client.http.settings.max_response_bytes * self.wanted.options.n,
                sending=sending,
            )
            found = read_images_answer(answer.json(), image_model=self.wanted.options.model)
        found = msgspec.structs.replace(found, request_ids=tuple(filter(None, (answer.request_id,))))
        return _Edited(answer=found, record=request.record, warnings=request.warnings)

    async def _get_inputs(self) -> Inputs:
        """All inputs, fetched and looked at, once in an attempt."""
        if self._inputs is None:
            self.progress.report(2, "looking at the images")
            images = tuple([await self._input(source, _ACCEPTED) for source in self.wanted.images])
            mask = None if self.wanted.mask is None else await self._input(self.wanted.mask, _MASKS)
            self._inputs = Inputs(images=images, mask=mask)
        return self._inputs

    async def _input(self, source: Source, kinds: frozenset[str]) -> Input:
        return source if source.file_id else await input_file(self.fetcher, source.text, kinds=kinds)

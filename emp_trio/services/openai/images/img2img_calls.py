"""The calls of one attempt to edit images: its inputs, a background response, the Images API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.jobs import Job
from emp_trio.services.billing import counted
from emp_trio.services.inputs import IMAGES, input_file
from emp_trio.services.openai.images.images_api import read_images_answer
from emp_trio.services.openai.images.img2img_payload import EditJob, Source
from emp_trio.services.openai.images.img2img_requests import (
    Input,
    Inputs,
    edit_response,
    edit_response_record,
    edits_request,
)
from emp_trio.services.openai.responses.answer import Answer
from emp_trio.services.openai.responses.background import BackgroundRun, ResponsesClient, request_headers
from emp_trio.services.openai.responses.request import ResponsesRequest
from emp_trio.services.remote_work import run_announced_work

if TYPE_CHECKING:
    from emp_trio.protocols.fetch.fetcher import Fetcher

ACCEPTED_IMAGES: Final = IMAGES - {"image/gif"}
MASKS: Final = frozenset({"image/png"})


class Edited(msgspec.Struct, frozen=True, kw_only=True):
    """An answer with images.

    Attributes:
        record: the request, without the bytes of images.
        warnings: what was left out of it.
    """

    answer: Answer
    record: dict[str, Any]
    warnings: tuple[str, ...] = ()


class EditCalls:
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

    async def background(self) -> Edited:
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
        return Edited(answer=answer, record=record)

    async def direct(self) -> Edited:
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
        return Edited(answer=found, record=request.record, warnings=request.warnings)

    async def _get_inputs(self) -> Inputs:
        """All inputs, fetched and looked at, once in an attempt."""
        if self._inputs is None:
            self.progress.report(2, "looking at the images")
            images = tuple([await self._input(source, ACCEPTED_IMAGES) for source in self.wanted.images])
            mask = None if self.wanted.mask is None else await self._input(self.wanted.mask, MASKS)
            self._inputs = Inputs(images=images, mask=mask)
        return self._inputs

    async def _input(self, source: Source, kinds: frozenset[str]) -> Input:
        return source if source.file_id else await input_file(self.fetcher, source.text, kinds=kinds)

"""The calls of one text-to-image attempt: three ways to an image (OpenAI reference 15)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from emp_trio.attempt import AttemptContext
from emp_trio.errors import ServiceError
from emp_trio.jobs import Job
from emp_trio.protocols.saves_assets import AssetSaver
from emp_trio.protocols.streaming import EventStream
from emp_trio.services.billing import counted
from emp_trio.services.openai.image_options import ImageOptions
from emp_trio.services.openai.images.approaches import Approach, refuses_background
from emp_trio.services.openai.images.images_api import generations_request, read_images_answer
from emp_trio.services.openai.responses.answer import Answer
from emp_trio.services.openai.responses.background import ResponsesClient, request_headers, run_background
from emp_trio.services.openai.responses.events import ResponseStream
from emp_trio.services.openai.responses.request import as_stream, image_request
from emp_trio.services.openai.responses.stream import run_stream
from emp_trio.services.previews import Previews, PreviewSettings, with_previews


class ImageSettings(Protocol):
    """What of the connector's settings its calls heed."""

    @property
    def preview(self) -> PreviewSettings:
        """What is done with partial images."""

    @property
    def partial_images(self) -> int:
        """How many are asked for."""

    @property
    def image_timeout(self) -> float:
        """Seconds for a call of the Images API."""


class Drawn(msgspec.Struct, frozen=True, kw_only=True):
    """An answer with images, and the body of the request that brought it."""

    answer: Answer
    body: dict[str, Any]


class ImageCalls:
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
        settings: ImageSettings,
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
    def ways(self) -> dict[Approach, Callable[[], Awaitable[Drawn]]]:
        """The calls by the names of their approaches."""
        return {"background": self.background, "streaming": self.streaming, "direct": self.direct}

    async def background(self) -> Drawn:
        """A background response that is polled, or the one that an earlier attempt has started."""
        try:
            answer = await run_background(self._client, self._job, self._progress, self._request)
        except ServiceError as error:
            self._in_background = not refuses_background(error)
            raise
        return Drawn(answer=answer, body=self._request.body)

    async def streaming(self) -> Drawn:
        """A streamed response: in the background as well, so that it can be resumed and adopted, where the service has
        that."""
        if self._in_background:
            try:
                return await self._stream(background=True)
            except ServiceError as error:
                if not refuses_background(error):
                    raise
        return await self._stream(background=False)

    async def _stream(self, *, background: bool) -> Drawn:
        partials = 0 if self._options.fields.get("output_format") == "gif" else self._settings.partial_images
        request = as_stream(self._request, background=background, partial_images=partials)

        async def follow(previews: Previews) -> Answer:
            def show(state: ResponseStream) -> None:
                if state.partial is not None:
                    previews.take(state.partial)

            return await run_stream(self._client, self._streaming, self._job, self._progress, request, on_partial=show)

        answer = await with_previews(self._saver, self._job, self._progress, self._settings.preview, follow)
        return Drawn(answer=answer, body=request.body)

    async def direct(self) -> Drawn:
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
        return Drawn(answer=found, body=body)

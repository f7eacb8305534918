"""``OpenAIResponsesConnector``: any request of the Responses API, run in the background and polled, or streamed."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, ClassVar

import msgspec
import structlog

from emp_trio.attempt import AttemptContext
from emp_trio.errors import ServiceError
from emp_trio.jobs import Job, JobResult, SavedAsset
from emp_trio.offload import off_loop, weight
from emp_trio.protocols.fetch import Fetches, FetchSettings
from emp_trio.protocols.http import Http, HttpSettings
from emp_trio.protocols.limits import Limits, LimitsSettings
from emp_trio.protocols.polling import Polling, PollingSettings
from emp_trio.protocols.saves_assets import Generated, GeneratedFile, SavesAssets
from emp_trio.protocols.streaming import Streaming
from emp_trio.services.billing import calls_before
from emp_trio.services.connector import Connector, ServiceFeatures
from emp_trio.services.lenient import flag
from emp_trio.services.openai.api import OpenAIApi
from emp_trio.services.openai.models import is_image_model
from emp_trio.services.openai.responses.answer import Answer
from emp_trio.services.openai.responses.answer_files import image_files, stop_warning
from emp_trio.services.openai.responses.background import ResponsesClient, run_background, steady
from emp_trio.services.openai.responses.raw_output import raw_output
from emp_trio.services.openai.responses.request import ResponsesRequest, responses_request
from emp_trio.services.openai.responses.stream import run_stream
from emp_trio.services.openai.settings import BASE_URL, MAX_RETRIES, OpenAISettings
from emp_trio.services.outputs import OutputFiles
from emp_trio.services.redaction import redacted
from emp_trio.services.results import asset_data, saved_asset
from emp_trio.settings import Env

log = structlog.get_logger(__name__)


class OpenAIResponsesConnector(
    OpenAIApi, Http, Streaming, Limits, Polling, Fetches, SavesAssets, Connector["OpenAIResponsesConnector.Settings"]
):
    """Any OpenAI Responses request: text and images.

    It runs in the background and is polled, unless the payload says ``stream: true``: then it is followed, also over
    lost connections. Images are always saved; text is saved as ``text/plain`` unless ``payload.save_assets`` is
    false, and is in the result in any case. A response that an earlier attempt has started is adopted, and what an
    earlier attempt could not save is uploaded, instead of being paid for again.
    """

    service_type: ClassVar[str] = "openai_responses"
    service_features: ClassVar[ServiceFeatures] = ServiceFeatures(job_status=True, cancellation=True)

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """Settings of the Responses connector.

        A response is looked at as long as ``attempts`` looks ``interval`` seconds apart take, but no longer than
        ``poll_timeout``.
        """

        openai: OpenAISettings
        http: Annotated[HttpSettings, Env(base_url=BASE_URL, max_retries=MAX_RETRIES)]
        polling: PollingSettings = PollingSettings(interval=5.0, attempts=60, errors_in_a_row=4)
        limits: LimitsSettings = LimitsSettings()
        fetch: FetchSettings = FetchSettings()

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        """Run one attempt.

        Raises:
            InvalidJob: there is nothing to send.
            Refused: OpenAI or the model declined.
            ServiceError: OpenAI failed, or is out of reach.
            AssetError: what it made could not be saved.
            trio.Cancelled: after the response was cancelled upstream, where ``context.stop_remote_work`` says so.
        """
        request = responses_request(job.payload, job_id=job.id, default_model=self.settings.openai.model)
        for warning in request.warnings:
            log.warning(warning)
        text_saved = flag(job.payload, "save_assets", default=True)

        async def make() -> Generated:
            client = ResponsesClient(http=self.http, poller=self.poller, openai=self.settings.openai)
            async with self.limiter.limit():
                if request.body.get("stream"):
                    answer = await run_stream(client, self.streaming, job, context, request, plan=steady)
                else:
                    answer = await run_background(client, job, context, request, plan=steady)
            had = await self._images(request, answer) if answer.images else None
            before = calls_before(job)
            build = partial(_generated, request, answer, had, text_saved=text_saved, earlier_calls=before)
            return await off_loop(weight([request.body, answer.raw]), build)

        may_have_files = text_saved or request.image_model is not None
        return await self.assets.produce(job, context, make=make, result=_result, expects_files=may_have_files)

    async def _images(self, request: ResponsesRequest, answer: Answer) -> OutputFiles:
        """The images of an answer. Where none of them can be had, words are enough if they may be the answer."""
        try:
            return await image_files(self.http, self.fetcher, answer.images)
        except ServiceError as error:
            if request.image_wanted or not answer.text:
                raise
            return OutputFiles(files=(), places=(), warnings=(f"no image of the answer can be had: {error.message}",))

    async def models(self) -> list[str]:
        """Models of the account that can answer: all but image models."""
        return [model for model in await self.model_ids() if not is_image_model(model)]


def _generated(
    request: ResponsesRequest, answer: Answer, had: OutputFiles | None, *, text_saved: bool, earlier_calls: int
) -> Generated:
    """What was made, with all that the result says about it: enough to upload it in another attempt."""
    data: dict[str, Any] = {
        "openai_response_id": answer.response_id,
        "model_used": answer.model,
        "usage": answer.usage,
        "raw_output": raw_output(answer),
    }
    files: tuple[GeneratedFile, ...] = ()
    warnings = [*request.warnings, *stop_warning(answer)]
    if had is not None:
        files = had.files
        warnings += had.warnings
    if had is not None and files:
        revised = answer.images[had.places[-1]].revised_prompt
        data |= {"text_description": answer.text or None, "revised_prompt": revised}
    else:
        data |= {"content_type": "text", "text": answer.text, "text_content": answer.text}
        if text_saved:
            files = (GeneratedFile(data=answer.text.encode(), media_type="text/plain"),)
    if answer.truncated:
        data["truncated"] = True
    metadata: dict[str, Any] = {}
    if warnings:
        metadata["warnings"] = warnings
    if earlier_calls:
        metadata["maybe_billed_before"] = earlier_calls
    if answer.skipped:
        metadata["skipped_output"] = list(answer.skipped)
    service = {
        "service_version": "openai-responses",
        "service_type": OpenAIResponsesConnector.service_type,
        "service_job_id": answer.response_id,
        "model_used": answer.model,
        "usage": answer.usage,
        "request_ids": list(answer.request_ids),
    }
    facts = {"data": data, "metadata": metadata, "service": service, "request": redacted(request.body)}
    return Generated(files=files, data=facts)


def _result(facts: dict[str, Any], saved: list[SavedAsset]) -> JobResult:
    data, metadata = dict(facts["data"]), dict(facts["metadata"])
    if saved and "text" in data:
        data |= {"mime_type": "text/plain", "saved_asset": saved_asset(saved[-1])}
    elif saved:
        data |= asset_data(saved[-1])
    if saved:
        metadata["saved_asset"] = saved_asset(saved[-1])
    return JobResult(
        success=True,
        data=data,
        metadata=metadata,
        output_files=tuple(asset.output_file() for asset in saved),
        service_metadata=facts["service"],
        raw_request_payload=facts["request"],
    )

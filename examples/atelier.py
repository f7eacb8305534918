"""A connector for a service that paints: a job id, polling, a file, and cancel. See docs/write-a-connector.md."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar

import msgspec

from emp_trio.assets.media import HEAD, sniff
from emp_trio.attempt import AttemptContext
from emp_trio.errors import InvalidJob, Refused, ServiceError
from emp_trio.jobs import Job, JobResult, SavedAsset
from emp_trio.protocols.auth import ApiKeyHeader
from emp_trio.protocols.http import Http, HttpSettings, describe_status
from emp_trio.protocols.parsing import parse
from emp_trio.protocols.polling import Polling, PollingSettings
from emp_trio.protocols.saves_assets import Generated, GeneratedFile, SavesAssets
from emp_trio.secrets import Secret
from emp_trio.services.connector import Connector, Health, ServiceFeatures
from emp_trio.services.probing import probe
from emp_trio.services.remote_work import run_remote_work
from emp_trio.services.results import asset_data, saved_asset
from emp_trio.settings import Env


class Image(msgspec.Struct, frozen=True):
    """An image as the service describes it; ``percent`` is how far it is."""

    id: Annotated[str, msgspec.Meta(min_length=1)]
    state: str
    percent: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0
    error: str = ""


def read_image(answer: Any) -> Image:
    """The image in an answer of the service. Raises ServiceError where there is none."""
    return parse(Image, answer, "no image")


class AtelierConnector(Http, Polling, SavesAssets, Connector["AtelierConnector.Settings"]):
    """Paints ``payload.prompt``."""

    service_type: ClassVar[str] = "atelier"
    service_features: ClassVar[ServiceFeatures] = ServiceFeatures(job_status=True, cancellation=True)

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """The key, and how the service is reached; ``cleanup_timeout``: seconds that stopping the work may take."""

        api_key: Annotated[Secret, Env("${ATELIER_API_KEY}")]
        http: Annotated[HttpSettings, Env(base_url="${ATELIER_URL:-http://localhost:8000}")]
        polling: PollingSettings = PollingSettings(interval=1.0, attempts=300)
        cleanup_timeout: Annotated[float, msgspec.Meta(gt=0)] = 5.0

    def auth(self) -> ApiKeyHeader:
        return ApiKeyHeader("x-api-key", self.settings.api_key)

    def describe_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
        """422 is how this service declines a prompt; the rest is as HTTP has it."""
        error = describe_status(status, headers, body)
        return Refused(error.message, status=status) if status == 422 else error

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        prompt = job.payload.get("prompt")
        if not isinstance(prompt, str):
            raise InvalidJob("payload.prompt is missing", reason="missing_required_field")
        return await self.assets.produce(job, context, make=partial(self._paint, prompt, job, context), result=_result)

    async def _paint(self, prompt: str, job: Job, context: AttemptContext) -> Generated:
        async def start() -> str:
            return read_image((await self.http.request("POST", "/images", json={"prompt": prompt})).json()).id

        async def usable(image_id: str) -> bool:
            return (await self._image(image_id)).state in ("painting", "done")

        file = await run_remote_work(
            job,
            context,
            key="image",
            usable=usable,
            start=start,
            wait=lambda found: self._painted(found, context),
            cancel=lambda found: self.http.request("DELETE", f"/images/{found}", expect="any"),
            grace=self.settings.cleanup_timeout,
        )
        return Generated(files=(GeneratedFile(data=file),), data={"prompt": prompt})

    async def health(self) -> Health:
        return await probe(self.http, "/health", retries=0)

    async def _painted(self, image_id: str, context: AttemptContext) -> bytes:
        async def look() -> Image | None:
            image = await self._image(image_id)
            if image.state == "failed":
                raise ServiceError(f"the atelier failed: {image.error}")
            context.report(0.9 * image.percent, "painting")
            return image if image.state == "done" else None

        await self.poller.poll(look, hint=f"image {image_id}")
        file = (await self.http.request("GET", f"/images/{image_id}/file", expect="any")).body
        if not (sniff(file[:HEAD]) or "").startswith("image/"):
            raise ServiceError("the atelier's file is no image", type="response_error", reason="corrupted_data")
        return file

    async def _image(self, image_id: str) -> Image:
        return read_image((await self.http.request("GET", f"/images/{image_id}", retries=0)).json())


def _result(facts: dict[str, Any], saved: list[SavedAsset]) -> JobResult:
    return JobResult(
        success=True,
        data=asset_data(saved[0]),
        metadata={"saved_asset": saved_asset(saved[0])},
        output_files=(saved[0].output_file(),),
        service_metadata={"service_type": AtelierConnector.service_type},
        raw_request_payload={"prompt": facts["prompt"]},
    )

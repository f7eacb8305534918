"""Images of an answer as a job's generation and as its result (queue protocol 5.3, connector reference 11)."""

from __future__ import annotations

from typing import Any

from emp_trio.jobs import JobResult, SavedAsset
from emp_trio.offload import off_loop, weight
from emp_trio.protocols.fetch import Fetcher
from emp_trio.protocols.http import HttpClient
from emp_trio.protocols.saves_assets import Generated
from emp_trio.services.openai.image_options import ImageOptions
from emp_trio.services.openai.responses.answer import Answer
from emp_trio.services.openai.responses.answer_files import image_files, stop_warning
from emp_trio.services.openai.responses.raw_output import raw_output
from emp_trio.services.redaction import kept_copy
from emp_trio.services.results import asset_data, saved_asset


async def generated_images(
    http: HttpClient,
    fetcher: Fetcher,
    answer: Answer,
    options: ImageOptions,
    *,
    request: dict[str, Any],
    service_type: str,
    data: dict[str, Any],
    metadata: dict[str, Any] | None = None,
) -> Generated:
    """What an image job has made, with all that its result says about it: enough to upload it in another attempt.

    Args:
        http, fetcher: for images that the answer only points to.
        answer: with at least one image.
        options: what was asked for, where the answer does not say what was done.
        request: the body that was sent.
        service_type: of the connector.
        data, metadata: what else goes into those parts of the result.

    Raises:
        ServiceError: as :func:`~emp_trio.services.openai.responses.answer_files.image_files`.
    """
    had = await image_files(http, fetcher, answer.images)
    image = answer.images[had.places[-1]]
    warnings = [*options.warnings, *stop_warning(answer), *had.warnings]
    if len(had.files) < options.n:
        warnings.append(f"{options.n} images were asked for, {len(had.files)} came")
    facts: dict[str, Any] = {
        "model_used": answer.model or options.model,
        "image_model": options.model,
        "size": image.size or options.fields["size"],
        "quality": image.quality or options.fields["quality"],
        "revised_prompt": image.revised_prompt,
        "openai_job_id": answer.response_id or None,
        "usage": answer.usage,
        "raw_output": await off_loop(weight(answer.raw), raw_output, answer),
    }
    service = {
        "service_version": "openai-image",
        "service_type": service_type,
        "service_job_id": answer.response_id or None,
        "model_used": answer.model or options.model,
        "usage": answer.usage,
        "request_ids": list(answer.request_ids),
    }
    return Generated(
        files=had.files,
        data={
            "data": facts | data,
            "metadata": ({"warnings": warnings} if warnings else {}) | (metadata or {}),
            "service_metadata": service,
            "raw_request_payload": await kept_copy(request),
        },
    )


def image_result(facts: dict[str, Any], saved: list[SavedAsset]) -> JobResult:
    """The result of an image job whose images are saved; the last one is the main one, as in the fleet
    (connector reference 4.3).

    Args:
        facts: the data of :func:`generated_images`, in this attempt or an earlier one.
        saved: its files, in their order.
    """
    return JobResult(
        success=True,
        data=asset_data(saved[-1]) | facts["data"],
        metadata={"saved_asset": saved_asset(saved[-1])} | facts["metadata"],
        output_files=tuple(asset.output_file() for asset in saved),
        service_metadata=facts["service_metadata"],
        raw_request_payload=facts["raw_request_payload"],
    )

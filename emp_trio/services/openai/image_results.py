"""Pictures of an answer as a job's generation and as its result (queue protocol 5.3, connector reference 11)."""

from __future__ import annotations

from typing import Any

import trio

from emp_trio.assets.content import decode_text
from emp_trio.errors import ServiceError
from emp_trio.jobs import JobResult, SavedAsset
from emp_trio.protocols.saves_assets import Generated, GeneratedFile
from emp_trio.services.openai.image_options import ImageOptions
from emp_trio.services.openai.raw_output import raw_output
from emp_trio.services.openai.responses import Answer, Picture
from emp_trio.services.redaction import redacted
from emp_trio.services.results import asset_data, saved_asset


async def picture_files(pictures: tuple[Picture, ...]) -> tuple[GeneratedFile, ...]:
    """The files of pictures.

    Raises:
        ServiceError: (response_error) one is not base64. It has been paid for.
    """
    return tuple([await _file(picture) for picture in pictures])


async def _file(picture: Picture) -> GeneratedFile:
    try:
        declared, data = await trio.to_thread.run_sync(decode_text, picture.data)
    except ServiceError as error:
        error.maybe_started = True
        raise
    return GeneratedFile(data=data, media_type=picture.media_type or declared)


async def generated_pictures(
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
        answer: with at least one picture.
        options: what was asked for, where the answer does not say what was done.
        request: the body that was sent.
        service_type: of the connector.
        data, metadata: what else goes into those parts of the result.

    Raises:
        ServiceError: as :func:`picture_files`.
    """
    picture = answer.pictures[-1]
    facts: dict[str, Any] = {
        "model_used": answer.model or options.model,
        "image_model": options.model,
        "size": picture.size or options.fields["size"],
        "quality": picture.quality or options.fields["quality"],
        "revised_prompt": picture.revised_prompt,
        "openai_job_id": answer.response_id or None,
        "usage": answer.usage,
        "raw_output": raw_output(answer),
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
        files=await picture_files(answer.pictures),
        data={
            "data": facts | data,
            "metadata": ({"warnings": list(options.warnings)} if options.warnings else {}) | (metadata or {}),
            "service_metadata": service,
            "raw_request_payload": redacted(request),
        },
    )


def image_result(generated: Generated, saved: list[SavedAsset]) -> JobResult:
    """The result of an image job whose pictures are saved; the last one is the main one, as in the fleet (connector
    reference 4.3).

    Args:
        generated: of :func:`generated_pictures`, in this attempt or an earlier one.
        saved: its files, in their order.
    """
    facts = generated.data
    return JobResult(
        success=True,
        data=asset_data(saved[-1]) | facts["data"],
        metadata={"saved_asset": saved_asset(saved[-1])} | facts["metadata"],
        output_files=tuple(asset.output_file() for asset in saved),
        service_metadata=facts["service_metadata"],
        raw_request_payload=facts["raw_request_payload"],
    )

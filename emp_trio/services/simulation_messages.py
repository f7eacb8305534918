"""Messages of the simulated WebSocket service as values (connector reference 3.3). Pure."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.protocols.wire_json import decode_json
from emp_trio.secrets import excerpt
from emp_trio.services.image_fields import image_in, media_type_of
from emp_trio.services.redaction import excerpt_of
from emp_trio.services.work_states import phase_of

_MOST: Final = 10**15  # a larger number, infinity and nan are no progress and no time


class Progressed(msgspec.Struct, frozen=True):
    """How far a job is, 0 to 100."""

    percent: float
    total_steps: int = 0


class Completed(msgspec.Struct, frozen=True):
    """A finished job; ``images`` are (base64, media type)."""

    simulation_id: str
    results: dict[str, Any]
    output_url: str | None
    processing_time_ms: float
    images: tuple[tuple[str, str | None], ...] = ()


class Failed(msgspec.Struct, frozen=True):
    """A job that ended without a result."""

    message: str
    retryable: bool


Event: TypeAlias = Progressed | Completed | Failed


def decode(message: str | bytes) -> tuple[str | None, Event | None]:
    """A message as (id of its job, event). The event is None for what says nothing about the end or the progress of a
    job: greetings, answers to questions, unknown types, and anything that is not a JSON object."""
    try:
        fields = decode_json(message)
    except ServiceError:
        return None, None
    if not isinstance(fields, dict):
        return None, None
    job_id = next((str(fields[key]) for key in ("job_id", "jobId", "id") if fields.get(key)), None)
    kind = str(fields.get("type")).removeprefix("simulation_")
    match "progress" if kind == "progress" else phase_of(kind):
        case "progress":
            return job_id, _progressed(fields)
        case "done":
            return job_id, _completed(fields)
        case "failed" | "expired" | "stopped":
            return job_id, _ended(fields, Failed(_reason(fields), fields.get("retryable") is not False))
        case "cancelled":
            return job_id, _ended(fields, Failed(f"cancelled in the service: {_reason(fields)}", False))
        case "unknown" if _images(fields):
            return job_id, _completed(fields)
        case _:
            return job_id, None


def _ended(fields: dict[str, Any], failure: Failed) -> Completed | Failed:
    """An end that is not a good one; images that come with it are made, and are not made again."""
    return _completed(fields) if _images(fields) else failure


def _reason(fields: dict[str, Any]) -> str:
    return quoted(fields.get("error") or fields.get("message"))


def quoted(said: Any) -> str:
    """What a simulated service gives as the reason of a failure."""
    said = said or "no reason given"
    return excerpt(said, 500) if isinstance(said, str) else excerpt_of(said, 500)


def _progressed(fields: dict[str, Any]) -> Progressed | None:
    percent, step, steps = _number(fields, "progress"), _number(fields, "current_step"), _number(fields, "total_steps")
    if percent is None and step is not None and steps:
        percent = 100 * step / steps
    if percent is None:
        return None
    return Progressed(min(max(percent, 0.0), 100.0), int(steps or 0))


def _completed(fields: dict[str, Any]) -> Completed:
    results, url = fields.get("results"), fields.get("output_url")
    return Completed(
        simulation_id=str(fields.get("simulation_id") or ""),
        results=results if isinstance(results, dict) else {},
        output_url=url if isinstance(url, str) else None,
        processing_time_ms=_number(fields, "processing_time_ms") or 0.0,
        images=_images(fields),
    )


def _images(fields: dict[str, Any]) -> tuple[tuple[str, str | None], ...]:
    outputs = fields.get("outputs")
    images = outputs.get("images", outputs) if isinstance(outputs, dict) else outputs
    found = []
    for image in images if isinstance(images, list) else [images]:
        if isinstance(image, dict) and isinstance(image.get("data"), str):
            found.append((image["data"], media_type_of(image)))
        elif (image := image_in(image)) is not None:
            found.append((image.source, image.media_type))
    return tuple(found)


def _number(fields: dict[str, Any], name: str) -> float | None:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _MOST:
        return None
    return float(value)

"""Messages of the simulated WebSocket service (connector reference 3.3)."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.protocols.parsing import Lenient, parse_or_empty
from emp_trio.protocols.wire_json import decode_json
from emp_trio.secrets import excerpt
from emp_trio.services.image_fields import image_in, media_type_of
from emp_trio.services.redaction import excerpt_of
from emp_trio.services.work_states import phase_of

_MOST: Final = 10**15  # larger numbers are neither a progress nor a time
_Number: TypeAlias = Annotated[float, msgspec.Meta(ge=-_MOST, le=_MOST)]


class Progressed(msgspec.Struct, frozen=True):
    """Progress of a job, 0 to 100."""

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


class _Message(msgspec.Struct, frozen=True):
    """A message of any type. The job's id has three names, and may be a number; an invalid field leaves the others
    valid."""

    type: Lenient[str] = ""
    job_id: Any = None
    job: Any = msgspec.field(name="jobId", default=None)
    id: Any = None
    progress: Lenient[_Number | None] = None
    current_step: Lenient[_Number | None] = None
    total_steps: Lenient[_Number | None] = None
    simulation_id: Any = None
    results: Lenient[dict[str, Any]] = msgspec.field(default_factory=dict)
    output_url: Lenient[str | None] = None
    processing_time_ms: Lenient[_Number | None] = None
    outputs: Any = None
    error: Any = None
    message: Any = None
    retryable: Lenient[bool] = True


def decode(text: str | bytes) -> tuple[str | None, Event | None]:
    """Decode a message to (job id, event).

    The event is None for messages about neither the progress nor the end of a job: greetings, replies, unknown types,
    and anything that is not a JSON object.
    """
    try:
        message = parse_or_empty(_Message, decode_json(text))
    except ServiceError:
        return None, None
    job_id = next((str(name) for name in (message.job_id, message.job, message.id) if name), None)
    kind = message.type.removeprefix("simulation_")
    match "progress" if kind == "progress" else phase_of(kind):
        case "progress":
            return job_id, _progressed(message)
        case "done":
            return job_id, _completed(message)
        case "failed" | "expired" | "stopped":
            return job_id, _ended(message, Failed(quoted(message.error or message.message), message.retryable))
        case "cancelled":
            return job_id, _ended(
                message, Failed(f"cancelled in the service: {quoted(message.error or message.message)}", False)
            )
        case "unknown" if _images(message.outputs):
            return job_id, _completed(message)
        case _:
            return job_id, None


def _ended(message: _Message, failure: Failed) -> Completed | Failed:
    """A failure, or a completion where images came with it: they are not generated again."""
    return _completed(message) if _images(message.outputs) else failure


def quoted(reason: Any) -> str:
    """Return a service's reason for a failure as text of at most 500 characters."""
    reason = reason or "no reason given"
    return excerpt(reason, 500) if isinstance(reason, str) else excerpt_of(reason, 500)


def _progressed(message: _Message) -> Progressed | None:
    percent, steps = message.progress, message.total_steps
    if percent is None and message.current_step is not None and steps:
        percent = 100 * message.current_step / steps
    if percent is None:
        return None
    return Progressed(min(max(percent, 0.0), 100.0), int(steps or 0))


def _completed(message: _Message) -> Completed:
    return Completed(
        simulation_id=str(message.simulation_id or ""),
        results=message.results,
        output_url=message.output_url,
        processing_time_ms=message.processing_time_ms or 0.0,
        images=_images(message.outputs),
    )


def _images(outputs: Any) -> tuple[tuple[str, str | None], ...]:
    images = outputs.get("images", outputs) if isinstance(outputs, dict) else outputs
    found = []
    for image in images if isinstance(images, list) else [images]:
        if isinstance(image, dict) and isinstance(image.get("data"), str):
            found.append((image["data"], media_type_of(image)))
        elif (image := image_in(image)) is not None:
            found.append((image.source, image.media_type))
    return tuple(found)

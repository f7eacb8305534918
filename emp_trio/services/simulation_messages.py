"""Messages of the simulated WebSocket service as values (connector reference 3.3). Pure."""

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

_MOST: Final = 10**15  # a larger number is no progress and no time
_Number: TypeAlias = Annotated[float, msgspec.Meta(ge=-_MOST, le=_MOST)]


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


class _Message(msgspec.Struct, frozen=True):
    """A message of any type. The id of its job goes by three names, and is also a number; what is odd in one field
    takes nothing away from the others."""

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


def decode(message: str | bytes) -> tuple[str | None, Event | None]:
    """A message as (id of its job, event). The event is None for what says nothing about the end or the progress of a
    job: greetings, answers to questions, unknown types, and anything that is not a JSON object."""
    try:
        said = parse_or_empty(_Message, decode_json(message))
    except ServiceError:
        return None, None
    job_id = next((str(name) for name in (said.job_id, said.job, said.id) if name), None)
    kind = said.type.removeprefix("simulation_")
    match "progress" if kind == "progress" else phase_of(kind):
        case "progress":
            return job_id, _progressed(said)
        case "done":
            return job_id, _completed(said)
        case "failed" | "expired" | "stopped":
            return job_id, _ended(said, Failed(quoted(said.error or said.message), said.retryable))
        case "cancelled":
            return job_id, _ended(
                said, Failed(f"cancelled in the service: {quoted(said.error or said.message)}", False)
            )
        case "unknown" if _images(said.outputs):
            return job_id, _completed(said)
        case _:
            return job_id, None


def _ended(said: _Message, failure: Failed) -> Completed | Failed:
    """An end that is not a good one; images that come with it are made, and are not made again."""
    return _completed(said) if _images(said.outputs) else failure


def quoted(said: Any) -> str:
    """What a simulated service gives as the reason of a failure."""
    said = said or "no reason given"
    return excerpt(said, 500) if isinstance(said, str) else excerpt_of(said, 500)


def _progressed(said: _Message) -> Progressed | None:
    percent, steps = said.progress, said.total_steps
    if percent is None and said.current_step is not None and steps:
        percent = 100 * said.current_step / steps
    if percent is None:
        return None
    return Progressed(min(max(percent, 0.0), 100.0), int(steps or 0))


def _completed(said: _Message) -> Completed:
    return Completed(
        simulation_id=str(said.simulation_id or ""),
        results=said.results,
        output_url=said.output_url,
        processing_time_ms=said.processing_time_ms or 0.0,
        images=_images(said.outputs),
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

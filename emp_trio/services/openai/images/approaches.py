"""Ways to an image, one after the other: which ones a job has, and when the next one's turn comes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, TypeVar, get_args

import structlog

from emp_trio.errors import InvalidJob, Refused, ServiceError
from emp_trio.secrets import excerpt
from emp_trio.services.openai.image_options import ImageOptions

T = TypeVar("T")

log = structlog.get_logger(__name__)

Approach = Literal["background", "streaming", "direct"]
"""A background response that is polled; a streamed response with partial images; the Images API."""

APPROACHES: Final[tuple[Approach, ...]] = get_args(Approach)

LISTED: Final = r"^\s*(background|streaming|direct)(\s*,\s*(background|streaming|direct))*\s*$"
"""Pattern of a setting that lists approaches."""

_OBJECTIONS: Final = {
    "tools": None,  # "Tool 'image_generation' is not supported with ...": any objection to the tool as such
    "tool_choice": None,
    "background": frozenset(("unsupported_parameter",)),
    "store": frozenset(("unsupported_parameter",)),
    "stream": frozenset(("unsupported_parameter", "unsupported_value")),
    "partial_images": frozenset(("unsupported_parameter",)),
}
_TOOL_TYPE: Final = re.compile(r"tools\[\d+\]\.type")
_TOOL_OPTION: Final = re.compile(r"tools\[\d+\]\.(?=partial_images)")


def next_approach(error: Exception, approach: Approach) -> bool:
    """Whether an error says that an approach is not to be had here, so that no image can have been made or billed.

    Only then is the next one tried. Everything else ends the attempt: refusals, bad requests, models and sizes, the
    account (401, 403, billing), faults that were repeated in vain, timeouts, lost streams, uploads. Narrower than the
    OpenAI reference, section 15: where work may have begun, another approach would pay for it a second time.

    Args:
        error: what the approach ended with.
        approach: which one it was.
    """
    if not isinstance(error, ServiceError) or isinstance(error, Refused) or error.maybe_started or error.retry:
        return False
    if error.status == 404:  # of the path; a model's and a response's are of another kind
        return error.code != "model_not_found" and error.param != "model" and error.type == "validation_error"
    return error.status == 400 and approach != "direct" and _objects(error.param or "", error.code)


def listed_approaches(text: str) -> tuple[Approach, ...]:
    """The approaches of a setting that has the pattern ``LISTED``, in its order."""
    names = [name.strip() for name in text.split(",")]
    return tuple(sorted((approach for approach in APPROACHES if approach in names), key=names.index))


def refuses_background(error: ServiceError) -> bool:
    """Whether a service refused a response because it was to run in the background."""
    return error.status == 400 and error.param in ("background", "store") and error.code == "unsupported_parameter"


def choose_approaches(allowed: tuple[Approach, ...], asked: Any, options: ImageOptions) -> tuple[Approach, ...]:
    """The approaches of a job, in their order.

    Several images in one job are the Images API's alone: the image tool makes one per call (OpenAI reference 7, 8.1).
    An SVG can't be streamed.

    Args:
        allowed: of the settings.
        asked: ``payload.approach``.
        options: of the images.

    Raises:
        InvalidJob: the job asks for an approach that there is not, or that can't do it.
    """
    if asked not in (None, "") and asked not in allowed:
        raise InvalidJob(
            f"payload.approach must be one of {', '.join(allowed)}, not {excerpt(str(asked), 40)!r}",
            reason="unsupported_operation",
        )
    order = (asked,) if asked else allowed
    if options.n > 1:
        order = tuple(approach for approach in order if approach == "direct")
    if options.fields.get("output_format") == "svg":
        order = tuple(approach for approach in order if approach != "streaming")
    if not order:
        raise InvalidJob(
            f"no approach that this job may use ({asked or ', '.join(allowed)}) can make it: n above 1 needs direct, "
            "and streaming can't make an SVG",
            reason="unsupported_operation",
        )
    return order


async def try_approaches(
    order: tuple[Approach, ...], ways: dict[Approach, Callable[[], Awaitable[T]]]
) -> tuple[T, list[dict[str, str]]]:
    """Take the first approach that is to be had.

    Returns:
        what it returned, and what became of each approach: ``approach``, ``outcome``, and ``reason`` where it was
        ``unavailable``. The last one is the one that succeeded.

    Raises:
        ServiceError: none is to be had.
        Exception: whatever an approach that is to be had raises.
    """
    attempts: list[dict[str, str]] = []
    for approach in order:
        try:
            made = await ways[approach]()
        except ServiceError as error:
            if not next_approach(error, approach):
                raise
            log.warning("approach.unavailable", approach=approach, error=error.message)
            attempts.append({"approach": approach, "outcome": "unavailable", "reason": error.message})
            continue
        attempts.append({"approach": approach, "outcome": "completed"})
        return made, attempts
    raise ServiceError(
        "OpenAI offers none of the ways to an image: "
        + "; ".join(f"{attempt['approach']}: {attempt['reason']}" for attempt in attempts),
        type="validation_error",
        reason="unsupported_operation",
        retry=False,
    )


def _objects(param: str, code: str | None) -> bool:
    if _TOOL_TYPE.fullmatch(param):
        return True
    param = _TOOL_OPTION.sub("", param)
    if param not in _OBJECTIONS:
        return False
    codes = _OBJECTIONS[param]
    return code != "model_not_found" if codes is None else code in codes

"""The Images API: its requests, and its answers, read into the same ``Answer`` as a response's (OpenAI reference 8)."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from emp_trio.errors import Refused, ServiceError
from emp_trio.protocols.parsing import Lenient, parse_or_empty
from emp_trio.secrets import excerpt, one_line
from emp_trio.services.image_fields import image_in
from emp_trio.services.openai.errors import failed_response
from emp_trio.services.openai.image_options import ImageOptions
from emp_trio.services.openai.responses.answer import MEDIA_TYPES, Answer, Image, usage
from emp_trio.services.openai.responses.messages import ImageFacts
from emp_trio.services.redaction import excerpt_of

_LISTS: Final = ("data", "images", "output", "artifacts", "predictions", "results")
_WRAPPERS: Final = ("result", "response")  # of gateways


def generations_request(prompt: str, options: ImageOptions) -> dict[str, Any]:
    """The body of ``POST /images/generations``."""
    return {"model": options.model, "prompt": prompt, "n": options.n} | options.fields


def read_images_answer(answer: Any, *, image_model: str) -> Answer:
    """What an answer of the Images API holds.

    Args:
        answer: the JSON value, whatever it is.
        image_model: the model asked for, for the usage.

    Raises:
        Refused: it is in words, or an error that says so.
        ServiceError: there is no image in it. It may have been billed.

    Images are base64, data URLs or URLs, under the names that gateways use. An entry without one takes nothing from
    the others.
    """
    said = answer if isinstance(answer, dict) else {}
    if isinstance(said.get("error"), dict) and not any(said.get(name) for name in _LISTS):
        error = failed_response(said["error"])
        error.maybe_started = not isinstance(error, Refused)
        raise error
    entries = _entries(answer)
    whole = parse_or_empty(ImageFacts, said)
    images = tuple(image for entry in entries if (image := _image(entry, whole)) is not None)
    if not images:
        words = " ".join(_words(entry) for entry in (said, *entries)).strip()
        if words:
            raise Refused(
                f"OpenAI's Images API answered in words instead of an image: {excerpt(words, 500)}", code="no_image"
            )
        raise _no_image(f"OpenAI's Images API answered without an image: {_shown(entries[0] if entries else answer)}")
    return Answer(
        response_id="",
        text="",
        images=images,
        truncated=False,
        stopped="",
        model=None,
        usage=usage({"tool_usage": {"image_gen": said.get("usage")}}, image_model),
        skipped=(),
        raw=said,
    )


def _entries(answer: Any, depth: int = 3) -> list[Any]:
    """What may hold images in an answer: the entries of a list, also of one further inside, or the one thing that
    there is."""
    if isinstance(answer, list):
        nested = depth and any(isinstance(entry, list) for entry in answer)
        return [inner for entry in answer for inner in _entries(entry, depth - 1)] if nested else answer
    said = answer if isinstance(answer, dict) else {}
    for name in (*_LISTS, *_WRAPPERS):
        found = said.get(name)
        if isinstance(found, list) and found:
            return _entries(found, depth)
        if isinstance(found, dict) and found:
            return _entries(found, depth - 1) if depth else [found]
    return [answer]


def _image(entry: Any, whole: ImageFacts) -> Image | None:
    found = image_in(entry, media_type=MEDIA_TYPES.get(whole.output_format))
    if found is None:
        return None
    return Image(
        data=found.source,
        media_type=found.media_type,
        revised_prompt=parse_or_empty(ImageFacts, entry).revised_prompt or None,
        size=whole.size or None,
        quality=whole.quality or None,
    )


class _Spoken(msgspec.Struct, frozen=True):
    """Words in place of an image."""

    text: Lenient[str] = ""
    content: Lenient[str] = ""
    message: Lenient[str] = ""
    refusal: Lenient[str] = ""
    detail: Lenient[str] = ""


def _words(entry: Any) -> str:
    said = parse_or_empty(_Spoken, entry)
    texts = (said.text, said.content, said.message, said.refusal, said.detail)
    return next((one_line(text, 500) for text in texts if text.strip()), "")


def _shown(value: Any) -> str:
    return excerpt_of(value, 200)


def _no_image(message: str) -> ServiceError:
    return ServiceError(message, type="response_error", reason="missing_expected_data", maybe_started=True)

"""Input files of jobs: data URLs, bare base64 and URLs, all of them bounded and known to be what they should be."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final
from urllib.parse import unquote

import msgspec
import trio

from emp_trio.assets.content import decode_text
from emp_trio.assets.media import HEAD, extension, sniff
from emp_trio.errors import InvalidJob, ServiceError
from emp_trio.protocols.fetch import Fetcher

IMAGES: Final = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})
"""Images that services take. SVG is none of them: it is a program."""

_LONGEST_NAME: Final = 80
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]+")


class InputFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a job brings along.

    ``media_type`` is what its bytes show. ``name`` is safe anywhere: ASCII letters, digits, ``_`` and ``-``, and the
    extension of its type.
    """

    data: bytes
    media_type: str
    name: str


async def input_file(fetcher: Fetcher, source: Any, *, kinds: Collection[str] = IMAGES) -> InputFile:
    """The file that ``source`` is or points to.

    Args:
        fetcher: gets what a URL names; its limits hold for all files.
        source: a data URL, an http(s) URL, or bare base64.
        kinds: media types to accept; the file's bytes decide, whatever its server or the data URL says.

    Raises:
        InvalidJob: the source is none of these, is too large or is a file of another kind, or see
            :meth:`emp_trio.protocols.fetch.Fetcher.fetch`.
        InputUnavailable: the server of a URL failed; worth a retry.
    """
    if not isinstance(source, str):
        raise InvalidJob(f"an input file was given as {type(source).__name__}, not as text", reason="invalid_format")
    text = source.strip()
    if not text:
        raise InvalidJob("an input file is empty text", reason="missing_required_field")
    if "{{" in text[:4096]:
        raise InvalidJob("an input file is a template whose {{...}} nobody has filled in", reason="invalid_format")
    if is_url(text):
        found = await fetcher.fetch(text)
        return _checked(found.data, found.name, kinds, "the file at the URL")
    data = await trio.to_thread.run_sync(_decoded, text, fetcher.settings.input_max_bytes)
    return _checked(data, "", kinds, "the input file")


def is_url(text: str) -> bool:
    """Whether text is an http(s) URL, by its beginning."""
    return text.lstrip()[:8].lower().startswith(("http://", "https://"))


def _decoded(text: str, limit: int) -> bytes:
    """The bytes of a data URL or of base64."""
    start = text.find(",") + 1 if text.startswith("data:") else 0
    if (len(text) - start) * 3 // 4 - 2 > limit:  # before memory is spent on it
        raise _too_large(limit)
    try:
        data = decode_text(text)[1]
    except ServiceError as error:
        raise InvalidJob(
            f"an input file of {len(text)} characters is neither an http(s) URL nor a data URL nor base64",
            reason="invalid_format",
        ) from error
    if len(data) > limit:
        raise _too_large(limit)
    if not data:
        raise InvalidJob("an input file is empty", reason="invalid_format")
    return data


def _too_large(limit: int) -> InvalidJob:
    return InvalidJob(f"an input file is larger than the {limit} bytes that it may have (input_max_bytes)")


def _checked(data: bytes, name: str, kinds: Collection[str], what: str) -> InputFile:
    kind = sniff(data[:HEAD])
    if kind is None or kind not in kinds:
        raise InvalidJob(
            f"{what} is {kind or 'of no known type'}; accepted are {', '.join(sorted(kinds))}", reason="invalid_format"
        )
    stem = _NOT_IN_NAMES.sub("_", unquote(name).rpartition(".")[0]).strip("_")[:_LONGEST_NAME]
    return InputFile(data=data, media_type=kind, name=f"{stem or kind.split('/', 1)[0]}.{extension(kind)}")

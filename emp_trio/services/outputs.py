"""Files in an answer of a service, in whatever form it gives them: what can be had of them is kept.

They are paid for. So one of several that is broken is left out and named, and costs the job nothing else; only where
none is left the answer has failed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Final
from urllib.parse import urljoin

import msgspec
import trio

from emp_trio.assets.content import decode_text
from emp_trio.assets.media import HEAD, sniff
from emp_trio.connector_context import GeneratedFile
from emp_trio.errors import InputUnavailable, InvalidJob, ServiceError
from emp_trio.protocols.fetch import Fetcher
from emp_trio.protocols.http import HttpClient
from emp_trio.protocols.http.errors import bad_answer
from emp_trio.protocols.http.request import LeftOrigin
from emp_trio.protocols.urls import keeps_credentials, shown_url
from emp_trio.services.inputs import is_url

_NO_IMAGE: Final = re.compile(r"(?i)(text|audio|video|multipart)/|application/(json|problem|xml|x?html|javascript)")


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """A file as an answer gives it.

    Attributes:
        source: base64, a data URL, or an http(s) URL.
        media_type: what the service says it is, or None.
    """

    source: str
    media_type: str | None = None


class OutputFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What was had of an answer's files.

    Attributes:
        files: in their order.
        places: where each stands among what was given.
        warnings: what could not be had, and why.
    """

    files: tuple[GeneratedFile, ...]
    places: tuple[int, ...]
    warnings: tuple[str, ...] = ()


async def output_files(http: HttpClient, fetcher: Fetcher, outputs: Iterable[Output], *, images: bool) -> OutputFiles:
    """The files of an answer.

    Args:
        http: the service; a URL of its own origin is asked for with its credentials.
        fetcher: takes any other URL, the guarded way, without credentials, and up to ``max_response_bytes``.
        outputs: as the answer gives them; none may be missing.
        images: whether they must be images. Bytes that nobody knows are taken for one: formats come and go.

    Raises:
        ServiceError: (response_error) none of them can be had. ``maybe_started`` is set: the work has been done.
    """
    return await kept([functools.partial(_file, http, fetcher, output, images) for output in outputs])


async def decoded_files(outputs: Iterable[Output], *, images: bool) -> OutputFiles:
    """:func:`output_files` of a service that knows no URLs."""
    return await kept([functools.partial(_decoded_in_thread, output, images) for output in outputs])


async def kept(calls: Iterable[Callable[[], Awaitable[GeneratedFile]]]) -> OutputFiles:
    """What of several files can be had, one after the other; ``calls`` raise ServiceError where one can't.

    Raises:
        ServiceError: the first one's, where there is none that can be had; or (response_error) there are no calls.
    """
    files, places, lost = [], [], list[tuple[int, ServiceError]]()
    count = 0
    for count, call in enumerate(calls, 1):
        try:
            files.append(await call())
            places.append(count - 1)
        except ServiceError as error:
            error.maybe_started = True
            lost.append((count, error))
    if not files:
        raise lost[0][1] if lost else bad_answer("the answer has no file in it", reason="missing_expected_data")
    warnings = [f"output {place} of {count} is left out: {error.message}" for place, error in lost]
    return OutputFiles(files=tuple(files), places=tuple(places), warnings=tuple(warnings))


async def _file(http: HttpClient, fetcher: Fetcher, output: Output, images: bool) -> GeneratedFile:
    if not is_url(output.source):
        return await _decoded_in_thread(output, images)
    data, declared = await fetched(http, fetcher, output.source)
    return checked(data, output.media_type or declared, images=images)


async def _decoded_in_thread(output: Output, images: bool) -> GeneratedFile:
    def decode() -> GeneratedFile:
        declared, data = decode_text(output.source)
        return checked(data, output.media_type or declared, images=images)

    return await trio.to_thread.run_sync(decode)


def checked(data: bytes, declared: str | None, *, images: bool) -> GeneratedFile:
    """``data`` as a file, if it can be one.

    Raises:
        ServiceError: (response_error) it is empty, or is known to be no image where it must be one.
    """
    if not data:
        raise bad_answer("a file in the answer is empty", reason="missing_expected_data")
    kind = sniff(data[:HEAD])
    if kind is None and _NO_IMAGE.match((declared or "").strip()):
        kind = declared
    if images and kind is not None and not kind.startswith("image/"):
        raise bad_answer(f"the service sent {kind} where an image was expected", reason="unexpected_content_type")
    return GeneratedFile(data=data, media_type=declared)


async def fetched(http: HttpClient, fetcher: Fetcher, source: str) -> tuple[bytes, str | None]:
    """The file at an address that an answer gives, which may be relative to ``base_url``, and what its server says it
    is; see :func:`output_files`.

    Raises:
        ServiceError: it can't be had.
    """
    base = http.settings.base_url
    try:
        url = urljoin(base.rstrip("/") + "/", source.strip())
        own = keeps_credentials(base, url)
    except ValueError:
        text = "what the answer gives as the URL of a file is none"
        raise bad_answer(text, reason="invalid_response_format") from None
    named = url
    if own:
        try:
            answer = await http.request("GET", url, expect="any", same_origin=True)
            return answer.body, answer.headers.get("content-type")
        except LeftOrigin as error:
            url = error.location
    try:
        return (await fetcher.fetch(url, max_bytes=http.settings.max_response_bytes, retries=2)).data, None
    except (InvalidJob, InputUnavailable) as error:  # in the words for a job's input; it is the service's output
        # Where the service's own address redirects to is nobody's business.
        text = error.message if url == named else "it is redirected, and can't be had from there"
        raise ServiceError(
            f"the file of the answer at {shown_url(named)} can't be had: {text}",
            type="response_error",
            reason="missing_expected_data",
            retry=isinstance(error, InputUnavailable),
        ) from error

"""Collect the bytes of an asset from any source, with size and digest, readable repeatedly for upload retries.

Small content stays in memory. Larger content goes to a temporary file, because a worker may have hundreds of slots.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import re
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import IO, Any, Final
from urllib.parse import unquote_to_bytes

import msgspec
import trio

from emp_trio.assets.media import HEAD
from emp_trio.assets.stores import storage_failure
from emp_trio.errors import ServiceError
from emp_trio.sizes import LARGE, slices

IN_MEMORY: Final = 8 * 2**20
"""Maximum bytes kept in memory; larger content goes to a temporary file."""

_HOP: Final = LARGE  # bytes from which a thread is faster
_URL_SAFE: Final = str.maketrans("-_", "+/")
_DATA_URL: Final = re.compile(r"\s*data:([^,]*),", re.ASCII | re.IGNORECASE)


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes of an asset with their properties.

    Attributes:
        file: the bytes. Read it in a thread, starting with ``seek(0)``.
        head: first bytes, for type detection.
        size: number of bytes.
        sha256: hexadecimal digest.
        declared: media type of a data URL, or None.
    """

    file: IO[bytes]
    head: bytes
    size: int
    sha256: str
    declared: str | None = None


@asynccontextmanager
async def gathered(data: Any, *, max_bytes: int) -> AsyncIterator[Content]:
    """Collect ``data``, and compute its size and digest.

    Args:
        data: bytes, base64 text, data URL, or an async iterable of bytes, which is closed if it is not exhausted.
        max_bytes: maximum size; a stream is stopped at the first byte above.

    Yields:
        the content. Its temporary file is removed when the block ends, also by cancellation.

    Raises:
        ServiceError: (response_error) the data is empty, not base64, or has an unsupported type.
        AssetError: the data is too large, or the disk is full.
        Exception: any error of the iterable.
    """
    declared = None
    if isinstance(data, str):
        _bounded(len(data) * 3 // 4 - 2, max_bytes)  # before allocating memory
        declared, data = await _hop(len(data), decode_text, data)
    if isinstance(data, (bytes, bytearray, memoryview)):
        content = bytes(data)
        _bounded(len(content), max_bytes)
        if not content:
            raise _empty()
        digest = await _hop(len(content), lambda: hashlib.sha256(content).hexdigest())
        yield Content(
            file=io.BytesIO(content), head=content[:HEAD], size=len(content), sha256=digest, declared=declared
        )
    elif isinstance(data, AsyncIterable):
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY, prefix="emp-trio-") as file:
            yield await _spool(data, file, max_bytes)
    else:
        raise ServiceError(
            f"an asset was given as {type(data).__name__}, not as bytes, base64 text or a stream",
            type="response_error",
            reason="invalid_response_format",
        )


def decode_text(text: str) -> tuple[str | None, bytes]:
    """Decode base64 text or a data URL into (declared media type, bytes).

    Whitespace is ignored. URL-safe base64 and missing padding are accepted.

    Raises:
        ServiceError: (corrupted_data) the text is not base64; truncated text usually is not.
    """
    header = _DATA_URL.match(text)
    body = text[header.end() :] if header else text
    declared = header[1].split(";", 1)[0].strip() or None if header else None
    try:
        if header and not header[1].replace(" ", "").lower().endswith(";base64"):
            return declared, unquote_to_bytes(body)
        return declared, _bytes_of(body)
    except ValueError as error:  # binascii.Error, and UnicodeEncodeError of half a character, are ValueErrors
        raise ServiceError(
            f"the service's file can't be decoded: {len(body)} characters that are not valid base64",
            type="response_error",
            reason="corrupted_data",
        ) from error


def _bytes_of(body: str) -> bytes:
    """Decode base64; a long text in pieces, so that other threads run in between. Raises ValueError."""
    parts: list[bytes] = []
    rest = ""
    for start, stop in slices(len(body)):
        piece = rest + _letters(body[start:stop])
        if stop < len(body) and "=" in piece:  # padding before the end: near the end, or invalid
            return b"".join(parts) + base64.b64decode(piece + _letters(body[stop:]), validate=True)
        if stop == len(body) and ("-" in body or "_" in body):
            piece += "=" * (-len(piece) % 4)
        whole = len(piece) - len(piece) % 4 if stop < len(body) else len(piece)
        parts.append(base64.b64decode(piece[:whole], validate=True))
        rest = piece[whole:]
    return b"".join(parts)


def _letters(text: str) -> str:
    return "".join(text.split()).translate(_URL_SAFE)


async def _spool(source: AsyncIterable[Any], file: IO[bytes], max_bytes: int) -> Content:
    digest, size, head, waiting = hashlib.sha256(), 0, b"", bytearray()

    def write(piece: bytes) -> None:
        digest.update(piece)
        with _room():
            file.write(piece)

    iterator = source.__aiter__()
    try:
        async for chunk in iterator:
            size += len(chunk)
            _bounded(size, max_bytes)
            head += bytes(chunk[: HEAD - len(head)])
            waiting += chunk
            if len(waiting) >= _HOP:
                await trio.to_thread.run_sync(write, bytes(waiting))
                waiting.clear()
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
    await _hop(len(waiting), write, bytes(waiting))
    if not size:
        raise _empty()
    return Content(file=file, head=head, size=size, sha256=digest.hexdigest())


async def _hop(size: int, call: Any, *args: Any) -> Any:
    """Run ``call``, in a thread if ``size`` is large. Always executes a checkpoint."""
    if size >= _HOP:
        return await trio.to_thread.run_sync(call, *args)
    await trio.lowlevel.checkpoint()
    return call(*args)


@contextmanager
def _room() -> Iterator[None]:
    """Translate OSError while writing the temporary file, such as a full disk."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise storage_failure(
            f"the temporary file of an asset can't be written in {tempfile.gettempdir()}: {error.strerror}",
            hint="Make room there, or point TMPDIR to a larger disk",
            type="resource_limit" if full else "system_error",
            reason="disk_space_full" if full else "internal_error",
            retry=True,
        ) from error


def _bounded(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise storage_failure(
            f"the service's file is larger than the {max_bytes} bytes that an asset may have",
            type="resource_limit",
            reason="disk_space_full",
            retry=False,
        )


def _empty() -> ServiceError:
    return ServiceError("the service's file is empty", type="response_error", reason="missing_expected_data")

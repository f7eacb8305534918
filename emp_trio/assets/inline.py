"""A file inside the result itself, for jobs that ask for ``save_assets: false``. Pure."""

from __future__ import annotations

import base64

import msgspec

from emp_trio.assets.media import HEAD, media_type
from emp_trio.toolbox import GeneratedFile


class Inline(msgspec.Struct, frozen=True, kw_only=True):
    """Either a data URL, or why there is none."""

    url: str | None = None
    problem: str = ""


def inline_data(file: GeneratedFile, cap: int) -> Inline:
    """A file as a data URL. Results travel through Redis, so that only a small one may go this way.

    Args:
        file: what the service has made.
        cap: bytes it may have at most, ``AssetSaving.inline_bytes``.
    """
    if len(file.data) > cap:
        return Inline(
            problem=f"the file has {len(file.data)} bytes, and a result carries files of at most {cap} itself: leave "
            "save_assets away to have it stored, or raise EMP_TRIO_INLINE_MAX_BYTES at the worker"
        )
    kind = media_type(file.data[:HEAD], file.media_type)
    return Inline(url=f"data:{kind};base64,{base64.b64encode(file.data).decode()}")

"""Answers of ``txt2img`` and ``img2img``: the job's pictures, and what is said of them (A1111 reference 10.2). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from emp_trio.assets.content import decode_text
from emp_trio.assets.media import HEAD, sniff
from emp_trio.errors import ServiceError
from emp_trio.protocols.http_errors import bad_answer
from emp_trio.services.redaction import redacted
from emp_trio.toolbox import GeneratedFile

_MOST_INFO: Final = 32 * 2**10  # bytes of ``info`` that are kept in a result
_MOST_NAMES: Final = 20  # of members that are left out, and characters of each
_LONGEST_NAME: Final = 80


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer: the job's own pictures as base64, in their order, and ``info``."""

    pictures: list[str]
    info: dict[str, Any]


def read_answer(answer: Any, *, script: bool) -> Answer:
    """The job's pictures in an answer, without the grid before them and the maps and masks after them.

    Args:
        answer: the JSON value, whatever it is.
        script: the job has a script of its own (``script_name``): then the number of pictures is the script's business,
            and a grid may be all there is.

    Raises:
        ServiceError: (response_error) there are none, or fewer than were begun: somebody has interrupted it. The work
            has been done.
    """
    said = answer if isinstance(answer, dict) else {}
    listed = said.get("images")
    pictures = [picture for picture in listed if isinstance(picture, str)] if isinstance(listed, list) else []
    info = read_info(said.get("info"))
    first, seeds = info.get("index_of_first_image"), info.get("all_seeds")
    begin = first if isinstance(first, int) and first > 0 else 0
    count = len(seeds) if isinstance(seeds, list) and seeds else len(pictures)
    own = pictures[begin : begin + count] or (pictures if script else [])
    if not own:
        raise bad_answer("A1111 answered without a picture", reason="missing_expected_data")
    if len(own) < count and isinstance(seeds, list) and not script:
        raise bad_answer(
            f"A1111 made {len(own)} of {count} pictures: somebody has interrupted it", reason="missing_expected_data"
        )
    return Answer(pictures=own, info=info)


def read_info(info: Any) -> dict[str, Any]:
    """``info``, which is JSON in a text; empty where it is neither that nor an object."""
    try:
        found = msgspec.json.decode(info) if isinstance(info, str) else info
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


def kept_info(info: Mapping[str, Any]) -> dict[str, Any]:
    """``info`` as a result may carry it: without file bytes, and without its largest members where it is too large."""
    kept = {name: redacted(value) for name, value in info.items()}
    sizes = {name: len(msgspec.json.encode(value)) + len(name) for name, value in kept.items()}
    total = sum(sizes.values())
    dropped = []
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        if total <= _MOST_INFO:
            break
        del kept[name]
        dropped.append(name[:_LONGEST_NAME])
        total -= sizes[name]
    return kept | ({"left_out": dropped[:_MOST_NAMES]} if dropped else {})


def picture_file(base64: str) -> GeneratedFile:
    """A picture from bare base64 or a data URL; its bytes say what it is.

    Raises:
        ServiceError: (response_error) it is no picture. The work has been done.
    """
    try:
        data = decode_text(base64)[1]
    except ServiceError as error:
        error.maybe_started = True
        raise
    kind = sniff(data[:HEAD])
    if kind is None or not kind.startswith("image/"):
        raise bad_answer(
            f"A1111 sent {kind or 'bytes of no known type'} where a picture was expected",
            reason="unexpected_content_type",
        )
    return GeneratedFile(data=data, media_type=kind)

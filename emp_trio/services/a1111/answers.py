"""Answers of ``txt2img`` and ``img2img``: the job's images, and what is said of them (A1111 reference 10.2). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
import structlog

from emp_trio.errors import ServiceError
from emp_trio.protocols.http.errors import bad_answer
from emp_trio.protocols.parsing import Lenient, parse_or_empty
from emp_trio.protocols.wire_json import decode_json
from emp_trio.secrets import excerpt
from emp_trio.services.redaction import redacted

log = structlog.get_logger(__name__)

_MOST_INFO: Final = 32 * 2**10  # bytes of ``info`` that are kept in a result
_MOST_NAMES: Final = 20  # of members that are left out, and characters of each
_LONGEST_NAME: Final = 80


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer: the job's own images as base64, in their order, ``info``, and what is odd about it."""

    images: list[str]
    info: dict[str, Any]
    warnings: tuple[str, ...] = ()


class _Images(msgspec.Struct, frozen=True):
    """What a generation answers; forks make ``info`` a text within a text, or leave it out."""

    images: Lenient[list[Lenient[str]]] = []
    info: Any = None


class _Info(msgspec.Struct, frozen=True):
    """What ``info`` says of the images; the index is that of the job's first one, behind the grid."""

    all_seeds: Lenient[list[Any] | None] = None
    index_of_first_image: Lenient[Annotated[float, msgspec.Meta(ge=0)] | None] = None


def read_answer(answer: Any, *, script: bool, asked: Mapping[str, Any] | None = None) -> Answer:
    """The job's images in an answer, without the grid before them and the maps and masks after them.

    ``info`` says which they are. Where it is missing or broken, what was asked for tells: how many images, and
    whether a grid may stand before them.

    Args:
        answer: the JSON value, whatever it is.
        script: the job has a script of its own (``script_name``): then the number of images is the script's business,
            and a grid may be all there is.
        asked: the body of the request, where it is known.

    Raises:
        ServiceError: (response_error) there are none. The work has been done.

    Fewer than were begun, as where an extension has dropped one, are kept, and a warning says so: they have been made.
    """
    said = parse_or_empty(_Images, answer)
    images, info = said.images, read_info(said.info)
    about = parse_or_empty(_Info, info)
    count = len(about.all_seeds) if about.all_seeds else _asked_for(asked, script=script)
    if not count or (count > len(images) and about.all_seeds is None):
        count = len(images)
    begin = about.index_of_first_image
    if begin is None:  # a grid stands before several images that are saved there
        begin = (asked or {}).get("save_images") is True and not script and len(images) > count > 1
    own = images[int(begin) : int(begin) + count] or images  # a grid may be all there is
    if not own:
        members = excerpt(", ".join(answer) if isinstance(answer, dict) and answer else "none", 200)
        raise bad_answer(f"A1111 answered without an image; its members are {members}", reason="missing_expected_data")
    fewer = len(own) < count and about.all_seeds is not None and not script
    warnings = (f"A1111 made {len(own)} of {count} images; those are kept",) if fewer else ()
    return Answer(images=own, info=info, warnings=warnings)


def _asked_for(asked: Mapping[str, Any] | None, *, script: bool) -> int:
    """How many images were asked for; 0 where that can't be told."""
    if asked is None:
        return 0
    numbers = [asked.get(name, 1) for name in ("batch_size", "n_iter")]
    if script or not all(isinstance(number, int) and number > 0 for number in numbers):
        return 0
    return int(numbers[0] * numbers[1])


def read_info(info: Any) -> dict[str, Any]:
    """``info``, which is JSON in a text, of which some forks make a text again; empty where it is no object."""
    found = info
    for _ in range(2):
        if isinstance(found, str) and found:
            try:
                found = decode_json(found)
            except ServiceError as error:
                log.warning("a1111.info_unreadable", error=error.message)  # the images are good all the same
                return {}
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
        dropped.append(excerpt(name, _LONGEST_NAME))
        total -= sizes[name]
    return kept | ({"left_out": dropped[:_MOST_NAMES]} if dropped else {})

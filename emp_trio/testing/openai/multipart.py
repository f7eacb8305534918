"""``multipart/form-data`` (RFC 7578) as the edits route takes it. Pure."""

from __future__ import annotations

import re
from email.message import Message
from typing import Final

import msgspec

_LINE: Final = re.compile(r"^([!-9;-~]+):[ \t]*(.*)$")


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a form; ``filename`` and ``content_type`` are None where they are not given."""

    name: str
    filename: str | None
    content_type: str | None
    data: bytes


def parse_multipart(body: bytes, content_type: str) -> list[Upload]:
    """The parts of a form, in order.

    Args:
        content_type: the request's header, with the boundary.

    Raises:
        ValueError: says what is not as it should be.
    """
    boundary = _parameters("content-type", content_type).get("boundary")
    if not boundary:
        raise ValueError("the content type has no boundary")
    delimiter = b"--" + boundary.encode("latin-1")
    opening, *parts = (b"\r\n" + body).split(b"\r\n" + delimiter)
    if opening or not parts or not parts[-1].startswith(b"--"):
        raise ValueError("the form does not begin or end with its boundary")
    return [_part(part) for part in parts[:-1]]


def _part(part: bytes) -> Upload:
    head, blank, data = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    if not blank or not part.startswith(b"\r\n"):
        raise ValueError("a part has no head")
    headers: dict[str, str] = {}
    for line in head.decode("utf-8", "replace").split("\r\n"):
        found = _LINE.match(line)
        if found is None:
            raise ValueError(f"{line!r} is not a header of a part")
        headers[found[1].lower()] = found[2]
    disposition = headers.get("content-disposition", "")
    parameters = _parameters("content-disposition", disposition)
    if not disposition.startswith("form-data") or "name" not in parameters:
        raise ValueError("a part has no name")
    return Upload(
        name=parameters["name"],
        filename=parameters.get("filename"),
        content_type=headers.get("content-type"),
        data=data,
    )


def _parameters(header: str, value: str) -> dict[str, str]:
    message = Message()
    message[header] = value
    return {name: text for name, text in message.get_params(failobj=[], header=header)[1:] if isinstance(text, str)}

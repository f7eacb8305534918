"""Forms (``multipart/form-data``) as services read them: strictly, by python-multipart. Pure."""

from __future__ import annotations

import msgspec
from python_multipart.multipart import MultipartParser, parse_options_header


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a form; ``filename`` and ``content_type`` are None where they are not given."""

    name: str
    filename: str | None
    content_type: str | None
    data: bytes


def parse_form(body: bytes, content_type: str) -> list[Upload]:
    """The parts of a form, in order.

    Args:
        content_type: the request's header, with the boundary.

    Raises:
        ValueError: says what is not as it should be.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise ValueError("the content type has no boundary")
    reading = _Reading()
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": reading.begin,
            "on_header_field": lambda data, start, end: reading.field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: reading.value.extend(data[start:end]),
            "on_header_end": reading.end_header,
            "on_part_data": lambda data, start, end: reading.data.extend(data[start:end]),
            "on_part_end": reading.end_part,
            "on_end": reading.end,
        },
    )
    parser.write(body)
    parser.finalize()
    if not reading.ended:
        raise ValueError("the form does not end with its boundary")
    return reading.parts


class _Reading:
    def __init__(self) -> None:
        self.parts: list[Upload] = []
        self.ended = False
        self.begin()

    def begin(self) -> None:
        self.headers: dict[str, str] = {}
        self.field, self.value, self.data = bytearray(), bytearray(), bytearray()

    def end_header(self) -> None:
        self.headers[self.field.decode("latin-1").lower()] = self.value.decode("utf-8", "replace")
        self.field, self.value = bytearray(), bytearray()

    def end_part(self) -> None:
        kind, options = parse_options_header(self.headers.get("content-disposition", "").encode())
        if kind != b"form-data" or b"name" not in options:
            raise ValueError("a part has no name")
        filename = options.get(b"filename")
        upload = Upload(
            name=options[b"name"].decode("utf-8", "replace"),
            filename=None if filename is None else filename.decode("utf-8", "replace"),
            content_type=self.headers.get("content-type"),
            data=bytes(self.data),
        )
        self.parts.append(upload)

    def end(self) -> None:
        self.ended = True

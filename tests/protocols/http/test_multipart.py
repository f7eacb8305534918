"""Forms as a parser that is not ours reads them."""

from __future__ import annotations

import email
from email.policy import HTTP
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.protocols.http import CallOptions
from emp_trio.protocols.http.multipart import FilePart, multipart
from emp_trio.testing.faulty_server import open_faulty_server, reply
from tests.protocols.support import open_http


def parsed(content_type: str, body: bytes) -> list[tuple[Any, ...]]:
    """Name, file name, type and content of each part."""
    message = email.message_from_bytes(b"content-type: " + content_type.encode() + b"\r\n\r\n" + body, policy=HTTP)
    return [
        (
            part.get_param("name", header="content-disposition"),
            part.get_filename(),
            part["content-type"],
            part.get_payload(decode=True),
        )
        for part in message.iter_parts()
    ]


def test_texts_and_files_arrive_in_their_order() -> None:
    fields = [("prompt", "a cat – 猫\r\nin two lines"), ("n", "2"), ("n", "")]
    files = [
        FilePart(field="image[]", filename="a.png", media_type="image/png", data=b"\x89PNG\r\n--x\r\n\x00"),
        FilePart(field="image[]", filename="b.jpg", media_type="image/jpeg", data=b""),
    ]
    assert parsed(*multipart(fields, files)) == [
        ("prompt", None, None, "a cat – 猫\r\nin two lines".encode()),
        ("n", None, None, b"2"),
        ("n", None, None, b""),
        ("image[]", "a.png", "image/png", b"\x89PNG\r\n--x\r\n\x00"),
        ("image[]", "b.jpg", "image/jpeg", b""),
    ]


def test_a_name_can_not_break_out_of_its_header() -> None:
    evil = 'a"\r\ncontent-type: text/html\r\n\r\nx.png'
    _, body = multipart([(evil, "v")], [FilePart(field=evil, filename=evil, media_type="image/png", data=b"x")])
    assert b'filename="a%22%0D%0Acontent-type: text/html%0D%0A%0D%0Ax.png"' in body
    assert b"\r\ncontent-type: text/html" not in body
    assert body.count(b"\r\n\r\n") == 2


@pytest.mark.parametrize("media_type", ["image/png\r\nx: y", "image/pngé", "a\nb"])
def test_a_media_type_can_not_break_out_of_its_header(media_type: str) -> None:
    with pytest.raises(ValueError, match="media type"):
        multipart([], [FilePart(field="f", filename="f", media_type=media_type, data=b"x")])


@given(st.lists(st.binary(max_size=200), max_size=4), st.text(max_size=30))
def test_the_body_is_the_sum_of_its_parts(contents: list[bytes], text: str) -> None:
    files = [FilePart(field="f", filename="f.bin", media_type="application/octet-stream", data=c) for c in contents]
    content_type, body = multipart([("t", text)], files)
    boundary = content_type.partition("boundary=")[2].encode()
    first, *rest = body.split(b"--" + boundary)
    assert (first, rest[-1]) == (b"", b"--\r\n")
    assert [part.partition(b"\r\n\r\n")[2][:-2] for part in rest[:-1]] == [text.encode(), *contents]


async def test_a_form_goes_through_http_as_it_is() -> None:
    content_type, body = multipart([("a", "b")], [FilePart(field="f", filename="f", media_type="x/y", data=b"\0" * 9)])
    options = CallOptions(content=body, headers={"content-type": content_type})
    async with open_faulty_server(reply(json={})) as faulty, open_http(faulty.url) as probe:
        await probe.http.request("POST", "/upload", **options)
    (request,) = faulty.requests
    assert (request.headers["content-type"], request.body) == (content_type, body)

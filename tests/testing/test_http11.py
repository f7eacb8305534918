"""HTTP/1.1 as the misbehaving servers speak it."""

from __future__ import annotations

import h11
import pytest
import trio
import trio.testing

from emp_trio.testing.http11 import Cut, HttpConnection, ResponseWriter, read_request

ONE = b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nX-Two:  words\r\nContent-Length: 3\r\n\r\none"
TWO = b"PUT /b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\ntw\r\n1\r\no\r\n0\r\n\r\n"


@pytest.mark.parametrize("piece", [1, 7, 1000])
async def test_requests_that_come_in_one_piece_or_in_many(piece: int) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    whole = ONE + TWO + ONE
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            for at in range(0, len(whole), piece):
                await theirs.send_all(whole[at : at + piece])

        nursery.start_soon(send)
        one, rest = await read_request(ours, b"")
        two, rest = await read_request(ours, rest)
        three, rest = await read_request(ours, rest)
    assert (one.method, one.target, one.body, one.headers["x-two"]) == ("POST", "/a?b=c", b"one", "words")
    assert one.head + one.body == ONE
    assert (two.method, two.body) == ("PUT", b"two")
    assert TWO.startswith(two.head)
    assert (three, rest) == (one, b"")


@pytest.mark.parametrize("said", [b"", b"no HTTP\r\n\r\n", ONE[:-1], TWO[:-4]])
async def test_who_leaves_or_speaks_something_else_is_cut_off(said: bytes) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(said)
    await theirs.send_eof()
    with pytest.raises(Cut):
        await read_request(ours, b"")


async def test_a_client_that_waits_is_told_to_go_on() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    head, body = ONE[:-3].replace(b"Host", b"Expect: 100-continue\r\nHost"), ONE[-3:]
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            await theirs.send_all(head)
            assert b" 100 " in await theirs.receive_some()
            await theirs.send_all(body)

        nursery.start_soon(send)
        assert (await read_request(ours, b""))[0].body == b"one"


async def test_both_sides_of_an_exchange() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    client, server = HttpConnection(h11.CLIENT, ours), HttpConnection(h11.SERVER, theirs)
    await client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]), h11.EndOfMessage())
    assert (await server.request()).method == "GET"
    assert not server.reusable
    head = h11.Response(status_code=200, headers=[("content-length", "2")])
    await server.send(head, h11.Data(data=b"ok"), h11.EndOfMessage())
    answer, body = await client.message()
    assert isinstance(answer, h11.Response)
    assert (answer.status_code, body, server.reusable) == (200, b"ok", True)


@pytest.mark.parametrize("at", range(4))
async def test_an_answer_is_cut_at_any_byte(at: int) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    writer = ResponseWriter(ours)
    writer.left, writer.piece = at, 2
    with pytest.raises(Cut):
        await writer.send(b"abc")
    await ours.aclose()
    assert b"".join([bytes(data) async for data in theirs]) == b"abc"[:at]


async def test_an_answer_to_somebody_who_has_left_is_cut() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.aclose()
    with pytest.raises(Cut):
        await ResponseWriter(ours).send(b"abc")

"""What the fake OpenAI can do to any answer: errors, delays, cuts, resets; and what it notices in any request."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import trio

from emp_trio.testing.openai import FakeOpenAI, Script, open_fake_openai
from emp_trio.testing.openai.fake import RouteName

CHAT = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "hi"}]}
CREATE = {"model": "gpt-6-luna", "input": "hi"}
IMAGES = {"model": "gpt-image-2.6-flare", "prompt": "a cat"}
EDIT = IMAGES | {"images": [{"file_id": "file-1"}]}

routes = pytest.mark.parametrize(
    ("route", "method", "path", "body"),
    [
        ("create", "POST", "/responses", CREATE),
        ("retrieve", "GET", "/responses/resp_1", None),
        ("cancel", "POST", "/responses/resp_1/cancel", None),
        ("delete", "DELETE", "/responses/resp_1", None),
        ("chat", "POST", "/chat/completions", CHAT),
        ("images", "POST", "/images/generations", IMAGES),
        ("edits", "POST", "/images/edits", EDIT),
        ("models", "GET", "/models", None),
    ],
)
streams = pytest.mark.parametrize(
    ("route", "path", "body"),
    [
        ("create", "/responses", CREATE | {"stream": True}),
        ("chat", "/chat/completions", CHAT | {"stream": True}),
        ("images", "/images/generations", IMAGES | {"stream": True, "partial_images": 1}),
        ("edits", "/images/edits", EDIT | {"stream": True}),
    ],
)


async def received(openai: FakeOpenAI) -> bytes:
    """The bytes that a GET of the models brings, until the connection ends. Raises BrokenResourceError on a reset."""
    host, _, port = openai.base_url.removeprefix("http://").removesuffix("/v1").partition(":")
    request = f"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {openai.api_key.reveal()}\r\n"
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(f"{request}connection: close\r\n\r\n".encode())
        return b"".join([bytes(data) async for data in stream])


@routes
async def test_every_route_can_fail_in_every_way(
    openai: FakeOpenAI, client: httpx.AsyncClient, route: RouteName, method: str, path: str, body: Any
) -> None:
    headers = {"retry-after-ms": "7", "x-should-retry": "false", "x-ratelimit-remaining-requests": "0"}
    openai.inject(route, status=429, code="slow_down", type="rate_limit_error", headers=headers, extra={"more": 1})
    openai.inject(route, status=502, body=b"<html>Bad gateway</html>")
    openai.inject(route, reset=True)
    openai.inject(route, cut=20)
    answer = await client.request(method, path, json=body)
    assert answer.status_code == 429
    assert answer.json()["error"].items() >= {"code": "slow_down", "type": "rate_limit_error", "more": 1}.items()
    assert {name: answer.headers[name] for name in headers} == headers
    answer = await client.request(method, path, json=body)
    assert (answer.status_code, answer.text) == (502, "<html>Bad gateway</html>")
    assert answer.headers["content-type"].startswith("text/html")
    with pytest.raises(httpx.ReadError):
        await client.request(method, path, json=body)
    assert openai.billed == 0
    with pytest.raises(httpx.RemoteProtocolError):
        await client.request(method, path, json=body)
    assert (await client.request(method, path, json=body)).status_code in (200, 404)


@pytest.mark.parametrize("reset", [False, True])
async def test_an_answer_is_cut_at_any_byte(openai: FakeOpenAI, reset: bool) -> None:
    whole = len(await received(openai))
    for cut in (1, 17, whole // 2, whole - 1):
        openai.inject("models", cut=cut, reset=reset)
        if reset:
            with pytest.raises(trio.BrokenResourceError):
                await received(openai)
        else:
            assert len(await received(openai)) == cut
    openai.inject("models", cut=whole + 1)
    assert len(await received(openai)) == whole


@streams
async def test_a_stream_is_cut_at_any_byte(
    openai: FakeOpenAI, client: httpx.AsyncClient, route: RouteName, path: str, body: Any
) -> None:
    whole = (await client.post(path, json=body)).content
    openai.inject(route, cut=1200)
    got = b""

    async def read() -> None:
        nonlocal got
        async with client.stream("POST", path, json=body) as answer:
            async for chunk in answer.aiter_raw():
                got += chunk

    with pytest.raises(httpx.RemoteProtocolError):
        await read()
    assert 0 < len(got) < min(1200, len(whole))
    assert openai.billed == 2


async def test_what_runs_in_the_foreground_ends_with_its_connection(
    openai: FakeOpenAI, client: httpx.AsyncClient
) -> None:
    openai.script = Script(seconds=3600)
    openai.inject("create", cut=900)
    with trio.fail_after(60), pytest.raises(httpx.RemoteProtocolError):
        await client.post("/responses", json=CREATE | {"stream": True})
    (generation,) = openai.generations.values()
    with trio.fail_after(60):
        await generation.run.over.wait()
    assert generation.status(trio.current_time()) == "cancelled"


async def test_a_reset_after_the_fact_leaves_the_fact(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    openai.inject("chat", reset=True, after=True)
    with pytest.raises(httpx.ReadError):
        await client.post("/chat/completions", json=CHAT)
    assert openai.billed == 1


async def test_an_answer_can_be_late_or_slow(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    openai.inject("models", delay=3600)
    with pytest.raises(httpx.ReadTimeout):
        await client.get("/models", timeout=0.2)
    openai.inject("models", rate=2000)
    began = trio.current_time()
    assert (await client.get("/models")).status_code == 200
    assert trio.current_time() - began > 0.3


async def test_headers_of_all_answers_can_be_set(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    openai.headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}
    answer = await client.post("/chat/completions", json=CHAT | {"stream": True})
    assert answer.headers["x-ratelimit-reset-requests"] == "6m0s"
    assert "x-ratelimit-remaining-tokens" not in answer.headers
    assert answer.headers["x-request-id"].startswith("req_")


async def test_models_can_be_retired(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    openai.models = ["gpt-6-luna", "gpt-4.1"]
    openai.shutdown_dates["gpt-4.1"] = "2027-01-14"
    models = (await client.get("/models")).json()["data"]
    assert {model["id"]: model["shutdown_date"] for model in models} == {"gpt-6-luna": None, "gpt-4.1": "2027-01-14"}


async def test_a_connection_serves_many_requests(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    for _ in range(3):
        async with client.stream("POST", "/chat/completions", json=CHAT | {"stream": True}) as answer:
            await answer.aread()
            connection = answer.extensions["network_stream"].get_extra_info("client_addr")
        assert (await client.get("/models")).extensions["network_stream"].get_extra_info("client_addr") == connection


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"idempotency-key": "1"}, "undocumented header 'idempotency-key'"),
        ({"x-client-request-id": "x" * 513}, "X-Client-Request-Id"),
        ({"content-type": "text/plain"}, "content type 'text/plain'"),
        ({"accept": "text/event-stream"}, "where the answer is application/json"),
    ],
)
async def test_headers_that_nobody_documents_are_violations(
    openai: FakeOpenAI, client: httpx.AsyncClient, headers: dict[str, str], said: str
) -> None:
    await client.post("/chat/completions", json=CHAT, headers=headers)
    (violation,) = openai.violations
    assert said in violation


async def test_a_stream_is_to_be_accepted(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    await client.post("/chat/completions", json=CHAT | {"stream": True}, headers={"accept": "application/json"})
    assert openai.violations == ["accept: application/json where the answer is text/event-stream"]


async def test_calls_that_nobody_documents_are_bare_404s(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    answer = await client.post("/images/variations", json=IMAGES)
    assert (answer.status_code, answer.content) == (404, b"")
    assert (await client.put("/models")).status_code == 404
    assert openai.violations == [
        "undocumented call POST /v1/images/variations",
        "undocumented call PUT /v1/models",
    ]


async def test_a_strict_fake_fails_its_block(client: httpx.AsyncClient) -> None:
    async def talk(body: dict[str, Any], fail: bool = False) -> None:
        async with open_fake_openai(script=Script(seconds=0), strict=True) as openai:
            headers = {"authorization": f"Bearer {openai.api_key.reveal()}"}
            await client.post(f"{openai.base_url}/chat/completions", json=body, headers=headers)
            if fail:
                raise KeyError("the test's own error")

    await talk(CHAT)
    with pytest.raises(AssertionError, match="undocumented field 'colour'"):
        await talk(CHAT | {"colour": "red"})
    with pytest.raises(KeyError):
        await talk(CHAT | {"colour": "red"}, fail=True)

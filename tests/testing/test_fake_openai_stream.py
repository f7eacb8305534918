"""Streamed responses of the fake OpenAI, by HTTP (OpenAI reference 5 and 6.2)."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
import trio

from emp_trio.testing.openai import FakeOpenAI, Script, StreamScript

IMAGE = {"type": "image_generation", "model": "gpt-image-2.6-flare"}


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "gpt-6-luna", "input": "hi", "stream": True} | fields


def parsed(text: str) -> list[Any]:
    """The events of a stream; each event's name must be its type."""
    events = []
    for frame in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in frame.splitlines() if not line.startswith(":"))
        if fields:
            event = fields["data"] if fields["data"] == "[DONE]" else json.loads(fields["data"])
            assert event == "[DONE]" or event["type"] == fields["event"]
            events.append(event)
    return events


async def created(client: httpx.AsyncClient, **fields: Any) -> list[Any]:
    answer = await client.post("/responses", json=body(**fields))
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    return parsed(answer.text)


def types(events: list[Any]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


async def test_the_events_of_a_text(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    openai.script = Script(seconds=0, text="two words")
    events = await created(client)
    assert types(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(12))
    assert events[0]["response"]["status"] == "in_progress"
    deltas = events[6:8]
    assert "".join(delta["delta"] for delta in deltas) == "two words" == events[8]["text"]
    assert all(delta["obfuscation"] for delta in deltas)
    done = events[-1]["response"]
    assert done["output"][1] == events[10]["item"]
    assert done["usage"]["total_tokens"] == 50
    assert openai.billed == 1
    assert openai.violations == []


async def test_the_events_of_a_image(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    openai.script = Script(seconds=0, image_bytes=20_000)
    events = await created(client, tools=[IMAGE | {"partial_images": 2, "output_format": "jpeg"}])
    assert types(events)[4:11] == [
        "output_item.added",
        "image_generation_call.in_progress",
        "image_generation_call.generating",
        "image_generation_call.partial_image",
        "image_generation_call.partial_image",
        "image_generation_call.completed",
        "output_item.done",
    ]
    partials = events[7:9]
    assert [partial["partial_image_index"] for partial in partials] == [0, 1]
    final = base64.b64decode(events[10]["item"]["result"])
    assert final.startswith(b"\xff\xd8\xff")
    assert len(final) == 20_000
    images = {final, *(base64.b64decode(partial["partial_image_b64"]) for partial in partials)}
    assert len(images) == 3
    assert "result" not in events[9]
    openai.script = Script(seconds=0, stream=StreamScript(partial_images=1))
    fewer = await created(client, tools=[IMAGE | {"partial_images": 3}])
    assert types(fewer).count("image_generation_call.partial_image") == 1


@pytest.mark.parametrize(
    ("script", "ending", "seen"),
    [
        (Script(seconds=0, refusal="No, thank you."), "completed", "refusal.delta"),
        (Script(seconds=0, status="incomplete", text="Onc"), "incomplete", "output_text.delta"),
        (Script(seconds=0, status="failed"), "failed", "in_progress"),
        (Script(seconds=0, status="cancelled"), "in_progress", "created"),
    ],
)
async def test_other_endings(
    openai: FakeOpenAI, client: httpx.AsyncClient, script: Script, ending: str, seen: str
) -> None:
    openai.script = script
    events = await created(client)
    assert types(events)[-1] == ending
    assert seen in types(events)


async def test_a_refused_image_is_an_item_with_an_error(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    openai.script = Script(seconds=0, image_error={"code": "moderation_blocked", "message": "No."})
    events = await created(client, tools=[IMAGE])
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done[-1]["error"]["code"] == "moderation_blocked"
    assert "image_generation_call.completed" not in types(events)


@pytest.mark.parametrize("nested", [False, True])
async def test_both_forms_of_an_error(openai: FakeOpenAI, client: httpx.AsyncClient, nested: bool) -> None:
    error = {"code": "server_error", "message": "Oh."}
    openai.script = Script(seconds=0, stream=StreamScript(error=error, error_nested=nested))
    last = (await created(client))[-1]
    assert last["type"] == "error"
    assert (last["error"] if nested else last)["code"] == "server_error"
    openai.script = Script(seconds=0, stream=StreamScript(error=error, cut_after=3))
    assert types(await created(client)) == ["created", "in_progress", "output_item.added", "error"]


async def test_noise_padding_and_a_done_marker(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    openai.script = Script(seconds=0, stream=StreamScript(noise=True, done_marker=True))
    answer = await client.post("/responses", json=body(stream_options={"include_obfuscation": False}))
    events = parsed(answer.text)
    assert events.pop() == "[DONE]"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert types(events)[2:4] == ["keepalive", "hologram.turned"]
    assert "\n\n: " in answer.text
    assert not any("obfuscation" in event for event in events)


async def test_a_background_stream_can_be_resumed_where_it_was_cut(
    openai: FakeOpenAI, client: httpx.AsyncClient
) -> None:
    openai.script = Script(seconds=0, stream=StreamScript(cut_after=4))
    events = await created(client, background=True, store=True)
    assert types(events)[:3] == ["created", "queued", "in_progress"]
    path = f"/responses/{events[0]['response']['id']}"
    while events[-1]["type"] != "response.completed":
        query = {"stream": "true", "starting_after": str(events[-1]["sequence_number"])}
        more = parsed((await client.get(path, params=query)).text)
        assert 0 < len(more) <= 4
        events += more
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert openai.billed == 1
    assert openai.violations == []


async def test_only_background_streams_can_be_resumed(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    events = await created(client)
    path = f"/responses/{events[0]['response']['id']}"
    assert (await client.get(path, params={"stream": "true"})).status_code == 400
    assert openai.violations == []
    await client.get(path, params={"starting_after": "1", "colour": "red"})
    assert len(openai.violations) == 2


@pytest.mark.parametrize(("background", "status"), [(False, "cancelled"), (True, "in_progress")])
async def test_a_stream_left_early_ends_only_what_runs_in_the_foreground(
    openai: FakeOpenAI, client: httpx.AsyncClient, background: bool, status: str
) -> None:
    openai.script = Script(seconds=3600)
    with trio.fail_after(60):
        fields = {"background": True, "store": True} if background else {}
        async with client.stream("POST", "/responses", json=body(**fields)):
            pass
        (generation,) = openai.generations.values()
        if not background:
            await generation.run.over.wait()
    assert generation.status(trio.current_time()) == status


async def test_a_cancel_ends_the_stream_without_an_event(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    openai.script = Script(queued=3600)
    with trio.fail_after(60):
        async with client.stream("POST", "/responses", json=body(background=True, store=True)) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            await client.post(f"/responses/{next(iter(openai.generations))}/cancel")
            rest = [line async for line in lines]
    assert "event: response.queued" in rest
    assert not any("completed" in line for line in rest if line.startswith("event"))
    assert openai.billed == 0


async def test_a_stream_can_stall(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    openai.script = Script(seconds=0, stream=StreamScript(stall_after=1))
    with trio.fail_after(60):
        async with client.stream("POST", "/responses", json=body()) as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "event: response.created"
            openai.finish_all()
            assert "event: response.completed" in [line async for line in lines]

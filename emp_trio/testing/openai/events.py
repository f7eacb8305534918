"""The events of a streamed response, in the documented order (OpenAI reference 5). Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from emp_trio.testing.openai.generation import Generation
from emp_trio.testing.openai.media import image
from emp_trio.testing.openai.sse import COMMENT, DONE, Frame, data_frame, padding, pieces

_Event = dict[str, Any]
_ENDINGS = {"completed", "incomplete", "failed"}


def frames_of(generation: Generation, *, after: int = -1, obfuscation: bool = True) -> list[Frame]:
    """The frames of a generation's stream.

    Args:
        after: sequence number of the last event the client has; -1 for none.
        obfuscation: whether deltas are padded.
    """
    script = generation.script
    early = list(_early(generation))
    late = list(_late(generation))
    broken = script.stream.error is not None and script.stream.cut_after is None
    if broken:
        late.pop()
    times = [0.0] * len(early) + [
        script.queued + script.seconds * index / max(1, len(late) - 1) for index in range(len(late))
    ]
    frames = []
    for number, (time, event) in enumerate(zip(times, early + late, strict=True)):
        if obfuscation and event["type"].endswith(".delta"):
            event["obfuscation"] = padding()
        data = data_frame(event | {"sequence_number": number}, event=event["type"])
        frames.append(Frame(time, COMMENT + data if script.stream.noise else data))
    if script.stream.done_marker and not broken:
        frames.append(Frame(times[-1], DONE))
    return frames[after + 1 :]


def error_frame(generation: Generation, number: int) -> bytes | None:
    """The ``error`` event that the script asks for, as the event of that sequence number; or None."""
    script = generation.script.stream
    if script.error is None:
        return None
    error = {"code": None, "message": "The server had an error.", "param": None} | script.error
    members = {"error": error} if script.error_nested else error
    return data_frame({"type": "error", "sequence_number": number} | members, event="error")


def _early(generation: Generation) -> Iterator[_Event]:
    """What comes before the generation runs."""
    background = generation.body.get("background")
    status = "queued" if background else "in_progress"
    yield {"type": "response.created", "response": generation.snapshot(status)}
    if background:
        yield {"type": "response.queued", "response": generation.snapshot("queued")}


def _late(generation: Generation) -> Iterator[_Event]:
    status = generation.script.status
    yield {"type": "response.in_progress", "response": generation.snapshot("in_progress")}
    if generation.script.stream.noise:
        yield {"type": "keepalive"}
        yield {"type": "response.hologram.turned", "angle": 7}
    ending = generation.snapshot(status)
    for index, item in enumerate(ending["output"]):
        yield from _item(generation, index, item)
    if status in _ENDINGS:
        yield {"type": f"response.{status}", "response": ending}


def _item(generation: Generation, index: int, item: _Event) -> Iterator[_Event]:
    blank = {key: value for key, value in item.items() if key not in ("content", "result", "error")}
    match item["type"]:
        case "message":
            blank |= {"status": "in_progress", "content": []}
        case "image_generation_call":
            blank |= {"status": "in_progress", "result": None}
    yield {"type": "response.output_item.added", "output_index": index, "item": blank}
    match item["type"]:
        case "message":
            for number, part in enumerate(item["content"]):
                where = {"item_id": item["id"], "output_index": index, "content_index": number}
                for event in _part(part):
                    yield event | where
        case "image_generation_call":
            where = {"item_id": item["id"], "output_index": index}
            for event in _image(generation, index, item):
                yield event | where
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _part(part: _Event) -> Iterator[_Event]:
    """The events of a part of a message, but for where it is."""
    member, name = ("refusal", "refusal") if part["type"] == "refusal" else ("text", "output_text")
    more: _Event = {} if member == "refusal" else {"logprobs": []}
    yield {"type": "response.content_part.added", "part": part | {member: ""}}
    for piece in pieces(part[member]):
        yield {"type": f"response.{name}.delta", "delta": piece} | more
    yield {"type": f"response.{name}.done", member: part[member]} | more
    yield {"type": "response.content_part.done", "part": part}


def _image(generation: Generation, index: int, item: _Event) -> Iterator[_Event]:
    """The events of an image, but for where it is."""
    name = "response.image_generation_call"
    yield {"type": f"{name}.in_progress"}
    yield {"type": f"{name}.generating"}
    if item["result"] is None:
        return
    tool = generation.image_tool() or {}
    asked = tool.get("partial_images") or 0
    some = generation.script.stream.partial_images
    for number in itertools.islice(range(asked), some):
        yield {
            "type": f"{name}.partial_image",
            "partial_image_b64": image(item["output_format"], seed=1000 + index * 10 + number),
            "partial_image_index": number,
            "size": item["size"],
            "quality": item["quality"],
            "background": item["background"],
            "output_format": item["output_format"],
        }
    yield {"type": f"{name}.completed"}

"""The HTTP routes of the fake ComfyUI (ComfyUI reference 2)."""

from __future__ import annotations

import json as python_json
import uuid
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import trio

from emp_trio.testing.comfyui.disk import ROOT
from emp_trio.testing.comfyui.engine import Engine
from emp_trio.testing.comfyui.nodes import class_of
from emp_trio.testing.comfyui.validation import validate
from emp_trio.testing.faulty_server import Answer
from emp_trio.testing.faulty_server import reply as plain_reply
from emp_trio.testing.forms import parse_form
from emp_trio.testing.http11 import Received


def reply(status: int = 200, body: bytes | str = b"", *, json: Any = msgspec.UNSET, **more: Any) -> Answer:
    """An answer as aiohttp makes it: JSON is Python's own, which writes bare NaN and Infinity."""
    if json is msgspec.UNSET:
        return plain_reply(status, body, **more)
    return plain_reply(status, python_json.dumps(json), content_type="application/json; charset=utf-8", **more)


TROUBLE: Final = reply(500, "500 Internal Server Error\n\nServer got itself in trouble")
_EMPTY: Final = reply(200)
_MISSING: Final = reply(404)
_KEPT: Final = 10_000  # history entries
_MEDIA: Final = {"png": "image/png", "mp4": "video/mp4", "flac": "audio/flac"}


def route_of(request: Received) -> str:
    """The name of a request's route: method and path, without the id at its end."""
    path = urlsplit(request.target).path
    first = "/".join(path.split("/")[: 3 if path.startswith(("/upload", "/api/")) else 2])
    return f"{request.method} {first}"


async def answer(engine: Engine, request: Received) -> Answer:
    """What the server answers to a request that is no WebSocket."""
    parts = urlsplit(request.target)
    query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    last = unquote(parts.path.rpartition("/")[2])
    match route_of(request):
        case "POST /prompt":
            return await _prompt(engine, request.body)
        case "GET /prompt":
            return reply(json={"exec_info": {"queue_remaining": engine.remaining}})
        case "GET /queue":
            running = [engine.running.wire] if engine.running is not None else []
            heap = [item.wire for item in reversed(engine.pending)]  # not sorted, as a heap is not
            return reply(json={"queue_running": running, "queue_pending": heap})
        case "POST /queue":
            engine.delete(_json(request.body).get("delete") or [])
            return _EMPTY
        case "POST /interrupt":
            engine.interrupt(_json(request.body).get("prompt_id"))
            return _EMPTY
        case "GET /history":
            return _history(engine, last, query)
        case "POST /history":
            for prompt_id in _json(request.body).get("delete") or []:
                engine.history.pop(prompt_id, None)
            return _EMPTY
        case "POST /free":
            engine.free()
            return _EMPTY
        case "GET /view":
            return _view(engine, query)
        case "POST /upload/image" | "POST /upload/mask":
            return _upload(engine, request)
        case "GET /object_info":
            found = class_of(last, any_class=engine.behavior.any_class)
            return reply(json={} if found is None else {last: {**found, "name": last, "display_name": last}})
        case "GET /models":
            return reply(json=["fake.safetensors"])
        case "GET /system_stats":
            return reply(json=_stats(engine))
        case "GET /features":
            flags = {"supports_preview_metadata": True, "max_upload_size": 104857600}
            return reply(json=flags | ({"node_replacements": True} if engine.behavior.jobs else {}))
        case "GET /node_replacements" if engine.behavior.jobs:
            table = {old: [{"new_node_id": new, "old_node_id": old}] for old, new in engine.behavior.replaced.items()}
            return reply(json=table)
        case "GET /api/jobs" if engine.behavior.jobs:
            return _jobs(engine, query, last)
        case "POST /api/jobs" if engine.behavior.jobs:
            prompt_id = parts.path.split("/")[-2]
            known = prompt_id in {item.prompt_id for item in [*engine.pending, engine.running] if item is not None}
            engine.delete([prompt_id])
            engine.interrupt(prompt_id)
            return reply(json={"cancelled": known})
        case _:
            return reply(404, "404: Not Found")


async def _prompt(engine: Engine, raw: bytes) -> Answer:
    try:
        body: Any = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return TROUBLE
    if not isinstance(body, dict):
        return TROUBLE
    if "prompt" not in body:
        error = {"type": "no_prompt", "message": "No prompt provided", "details": "No prompt provided"}
        return reply(400, json={"error": error | {"extra_info": {}}, "node_errors": {}})
    number = body.get("number", 0)
    if not isinstance(body["prompt"], dict) or not isinstance(number, int | float):
        return TROUBLE

    if engine.behavior.jobs and (refusal := _later(engine, body)) is not None:
        return refusal

    def known(name: str) -> dict[str, Any] | None:
        return class_of(name, any_class=engine.behavior.any_class)

    verdict = validate(body["prompt"], known, lambda name: engine.disk.find(name) is not None)
    if verdict.error is not None:
        return reply(400, json={"error": verdict.error, "node_errors": verdict.node_errors})
    prompt_id = str(body.get("prompt_id", uuid.uuid4()))
    item = engine.put(body, prompt_id, verdict.outputs)
    if any(twin is not item and (twin.number, twin.prompt_id) == (item.number, prompt_id) for twin in engine.pending):
        return TROUBLE  # and yet it is queued (2.1)
    if engine.behavior.hold_answers:
        await engine.ended(item)
        await trio.sleep(0.1)  # the client has read the last message before it reads the answer
    return reply(json={"prompt_id": prompt_id, "number": item.number, "node_errors": verdict.node_errors})


def _later(engine: Engine, body: dict[str, Any]) -> Answer | None:
    """What 0.33 does before it validates: it wants canonical ids, and replaces old classes."""
    given = body.get("prompt_id")
    with suppress(ValueError, AttributeError, TypeError):
        if given is None or str(uuid.UUID(given)) == given:
            return _replace(engine, body["prompt"])
    error = {"type": "invalid_prompt_id", "message": "prompt_id must be a valid UUID", "details": "", "extra_info": {}}
    return reply(400, json={"error": error, "node_errors": {}})


def _replace(engine: Engine, graph: dict[str, Any]) -> Answer | None:
    for node in graph.values():
        if not isinstance(node, dict) or "inputs" not in node or "class_type" not in node:
            return TROUBLE
        if node["class_type"] in engine.behavior.replaced:
            if "_meta" not in node:
                return TROUBLE
            node["class_type"] = engine.behavior.replaced[node["class_type"]]
    return None


def _jobs(engine: Engine, query: dict[str, str], last: str) -> Answer:
    """Prompts in every state, without their graphs."""
    wanted = query.get("status", "pending,in_progress,completed,failed,cancelled").split(",")
    jobs = [{"id": item.prompt_id, "status": "pending", "priority": item.number} for item in reversed(engine.pending)]
    if engine.running is not None:
        jobs.append({"id": engine.running.prompt_id, "status": "in_progress", "priority": engine.running.number})
    for prompt_id, entry in engine.history.items():
        state = "completed" if entry["status"]["completed"] else "failed"
        jobs.append({"id": prompt_id, "status": state, "priority": entry["prompt"][0]})
    if last != "jobs":
        found = [job for job in jobs if job["id"] == last]
        return reply(json=found[0]) if found else reply(404, json={"error": "Job not found"})
    listed = [job for job in jobs if job["status"] in wanted]
    return reply(json={"jobs": listed, "pagination": {"offset": 0, "limit": None, "has_more": False}})


def _stats(engine: Engine) -> dict[str, Any]:
    total, free = 24 * 2**30, engine.behavior.free
    device = {"name": "cuda:0", "type": "cuda", "index": 0, "vram_total": total, "vram_free": free}
    device |= {"torch_vram_total": total - free, "torch_vram_free": 0}
    system = {"os": "posix", "ram_total": 4 * total, "ram_free": 2 * total, "comfyui_version": "0.3.64"}
    return {"system": system, "devices": [device]}


def _history(engine: Engine, last: str, query: dict[str, str]) -> Answer:
    if last == "history":
        if not query.get("max_items", "1").lstrip("-").isdecimal():
            return TROUBLE
        kept = list(engine.history.items())[-int(query.get("max_items", _KEPT)) :]
        return reply(json=dict(kept))
    if last not in engine.history:
        return reply(json={})
    if engine.behavior.empty_histories > 0:
        engine.behavior.empty_histories -= 1
        return reply(json={})
    return reply(json={last: engine.history[last]})


def _view(engine: Engine, query: dict[str, str]) -> Answer:
    name, subfolder, kind = query.get("filename", ""), query.get("subfolder", ""), query.get("type", "output")
    if name.startswith("/") or ".." in name or kind not in ("output", "input", "temp"):
        return reply(400)
    if ".." in subfolder.split("/"):
        return reply(403)
    subfolder = subfolder.removeprefix(f"{ROOT}/{kind}").strip("/")
    content = engine.disk.files.get((kind, subfolder, name))
    if content is None:
        return _MISSING
    media = _MEDIA.get(name.rpartition(".")[2], "application/octet-stream")
    return reply(200, content, content_type=media, headers={"content-disposition": f'filename="{name}"'})


def _upload(engine: Engine, request: Received) -> Answer:
    texts, name, content = _form(request)
    kind, subfolder = texts.get("type", "input"), texts.get("subfolder", "")
    if kind not in ("input", "temp", "output"):
        return TROUBLE
    if not name or ".." in subfolder.split("/"):
        return reply(400)
    overwrite = texts.get("overwrite") in ("true", "1")
    return reply(json=engine.disk.upload(kind, subfolder, name, content, overwrite=overwrite))


def _form(request: Received) -> tuple[dict[str, str], str, bytes]:
    """Texts, file name and file of a form; nothing where it is none."""
    try:
        parts = parse_form(request.body, request.headers.get("content-type", ""))
        texts = {part.name: part.data.decode() for part in parts if part.filename is None}
    except ValueError:
        return {}, "", b""
    image = next((part for part in reversed(parts) if part.name == "image" and part.filename is not None), None)
    return (texts, "", b"") if image is None else (texts, image.filename or "", image.data)


def _json(raw: bytes) -> dict[str, Any]:
    try:
        found: Any = msgspec.json.decode(raw) if raw else {}
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}

"""The calls that a client makes of ComfyUI, each with the care it needs (ComfyUI reference 2)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final, Unpack

import msgspec
import trio

from emp_trio.errors import ServiceError
from emp_trio.protocols.http import CallOptions, HttpClient, HttpStream
from emp_trio.protocols.http.multipart import FilePart, multipart
from emp_trio.protocols.http.paths import segment
from emp_trio.protocols.parsing import Lenient, parse, parse_or_empty
from emp_trio.services.comfyui.classes import NodeClass, read_class, read_replacements
from emp_trio.services.comfyui.errors import login_page
from emp_trio.services.comfyui.history import Entry, QueueLook, read_entry, read_jobs, read_newest, read_queue
from emp_trio.services.comfyui.outputs import File
from emp_trio.services.comfyui.pulse import Vitals, read_memory
from emp_trio.services.comfyui.settings import ComfyUISettings
from emp_trio.services.inputs import InputFile
from emp_trio.services.probing import NO_ROUTE

NOT_TOLD: Final = "invalid_response_format"
"""Reason of the error for an answer that says nothing of what was asked."""

_NO_ANSWER: Final = frozenset({"network_error", "timeout"})


class _ExecInfo(msgspec.Struct, frozen=True):
    queue_remaining: int


class _Remaining(msgspec.Struct, frozen=True):
    exec_info: _ExecInfo


class _Accepted(msgspec.Struct, frozen=True):
    node_errors: Lenient[dict[str, Any]] = {}


class _Stored(msgspec.Struct, frozen=True):
    name: Lenient[str] = ""
    subfolder: Lenient[str] = ""


class Calls:
    """The calls. All raise ServiceError; remembered is only which routes of later servers are missing.

    Args:
        http: the server.
        settings: its limits.
    """

    def __init__(self, http: HttpClient, settings: ComfyUISettings) -> None:
        self._http = http
        self._settings = settings
        self._lists_jobs = self._cancels_jobs = True  # later servers do (1)

    async def remaining(self) -> int:
        """How many prompts wait or run; the cheapest question there is."""
        info = await self._json("GET", "/prompt", retries=0)
        return parse(_Remaining, info, "the answer of GET /prompt is not ComfyUI's").exec_info.queue_remaining

    async def queue(self) -> QueueLook:
        """Who waits and who runs. Heavy where the server has no list of jobs: the answer holds whole graphs."""
        if self._lists_jobs:
            look = await self._jobs(status="in_progress,pending")
            if look is not None:
                return look
        return read_queue(await self._json("GET", "/queue", retries=0))

    async def vitals(self, look: QueueLook) -> Vitals:
        """What a server shows of its work, beside its queue; what it does not tell is left out."""
        return Vitals(
            running=frozenset(look.running),
            waiting=len(look.pending),
            newest=read_newest(await self._maybe("/history", max_items="1")),
            memory=read_memory(await self._maybe("/system_stats")),
        )

    async def entry(self, prompt_id: str) -> Entry | None:
        """How a prompt has ended; None for one that has not, or is not known."""
        try:
            answer = await self._json("GET", f"/history/{segment(prompt_id)}", retries=0)
        except ServiceError as error:
            if error.status in NO_ROUTE:  # nothing about the prompt is wrong, which may have ended well
                error.type, error.reason, error.retry = "response_error", "missing_expected_data", True
            raise
        return read_entry(answer, prompt_id)

    async def submit(self, body: dict[str, Any]) -> dict[str, Any]:
        """Queue a prompt.

        Returns:
            its node errors: outputs that are left out (2.1).

        Raises:
            ServiceError: without ``maybe_started``, nothing was queued; with it, nobody knows (2.1).
        """
        return parse_or_empty(_Accepted, await self._json("POST", "/prompt", json=body)).node_errors

    async def delete(self, prompt_id: str) -> None:
        """Take a prompt out of the queue, if it waits."""
        await self._post("/queue", {"delete": [prompt_id]})

    async def interrupt(self, prompt_id: str) -> None:
        """Interrupt a prompt, if it runs. Only for one that is known to: older servers stop whatever runs (2.2)."""
        await self._post("/interrupt", {"prompt_id": prompt_id})

    async def cancel(self, prompt_id: str) -> bool:
        """Stop a prompt, whether it waits or runs, in one step; False where the server has no such call."""
        if self._cancels_jobs:
            try:
                await self._json("POST", f"/api/jobs/{segment(prompt_id)}/cancel", json={}, idempotent=True)
            except ServiceError as error:
                if error.type in _NO_ANSWER:
                    raise
                self._cancels_jobs = False
        return self._cancels_jobs

    async def forget(self, prompt_id: str) -> None:
        """Take a prompt out of the history."""
        await self._post("/history", {"delete": [prompt_id]})

    async def node_classes(self, names: Iterable[str]) -> dict[str, NodeClass | None]:
        """What the server says of node classes, asked all at once; None for one that it does not have."""
        found: dict[str, NodeClass | None] = {}
        failed: list[ServiceError] = []

        async def ask(name: str) -> None:
            try:
                answer = await self._json("GET", f"/object_info/{segment(name)}")
                parse(dict[str, Any], answer, "ComfyUI does not tell of its node classes")
                found[name] = read_class(name, answer)
            except ServiceError as error:
                failed.append(error)

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(ask, name)
        if failed:
            raise failed[0]
        return found

    async def replacements(self) -> dict[str, str] | None:
        """Classes that the server puts others in the place of, by name: what its first choice is for each.

        Returns:
            None where it does not tell, neither whether it does such a thing nor what.
        """
        try:
            flags = await self._json("GET", "/features")
            if not isinstance(flags, dict):
                return None
            if flags.get("node_replacements") is not True:
                return {}  # an older server has none (real servers 1)
            table = await self._json("GET", "/node_replacements")
        except ServiceError as error:
            if error.status is None:
                raise
            return None
        return read_replacements(table)

    async def checkpoints(self) -> list[str]:
        """Names of the checkpoint models."""
        return parse_or_empty(list[Lenient[str]], await self._json("GET", "/models/checkpoints"))

    async def upload(self, file: InputFile, subfolder: str) -> str:
        """Store an input file.

        Returns:
            how a graph names it: the server may have given it another name (2.4).
        """
        part = FilePart(field="image", filename=file.name, media_type=file.media_type, data=file.data)
        content_type, body = multipart([("subfolder", subfolder), ("type", "input")], [part])
        answer = await self._json(
            "POST",
            "/upload/image",
            content=body,
            headers={"content-type": content_type},
            idempotent=True,  # the same file again is the same file
            timeout=self._settings.transfer_timeout,
        )
        stored = parse_or_empty(_Stored, answer)
        if not stored.name:
            raise ServiceError(
                "ComfyUI took an upload without naming it", type="response_error", reason="missing_expected_data"
            )
        return f"{stored.subfolder}/{stored.name}" if stored.subfolder else stored.name

    @asynccontextmanager
    async def view(self, file: File) -> AsyncIterator[HttpStream]:
        """A file as a stream, for the block."""
        async with self._http.stream(
            "GET", "/view", params=file.address, timeout=self._settings.transfer_timeout
        ) as stream:
            if "html" in stream.headers.get("content-type", ""):  # ComfyUI itself sends pages as octet-stream (2.3)
                page = ServiceError("a page came instead of a file", reason="unexpected_content_type")
                raise stream.explain(login_page(page))
            yield stream

    async def _jobs(self, **query: str) -> QueueLook | None:
        """The list of jobs; None where there is none to be had. A stranger's job can make it fail for a while."""
        try:
            answer = await self._json("GET", "/api/jobs", params=query, retries=0)
        except ServiceError as error:
            if error.type in _NO_ANSWER:
                raise
            self._lists_jobs = error.status is not None and error.status >= 500
            return None
        look = read_jobs(answer)
        self._lists_jobs = look is not None
        return look

    async def _maybe(self, path: str, **query: str) -> Any:
        """The answer of a call that a server or a proxy may not have; None then."""
        try:
            return await self._json("GET", path, params=query, retries=0)
        except ServiceError as error:
            if error.type in _NO_ANSWER:
                raise
            return None

    async def _json(self, method: str, path: str, **options: Unpack[CallOptions]) -> Any:
        options.setdefault("timeout", self._settings.call_timeout)
        try:
            answer = await self._http.request(method, path, **options)
        except ServiceError as error:
            found = login_page(error)
            if found is error:
                raise
            raise found from error
        return answer.json()

    async def _post(self, path: str, body: dict[str, Any]) -> None:
        await self._http.request(
            "POST", path, json=body, expect="any", idempotent=True, timeout=self._settings.call_timeout
        )

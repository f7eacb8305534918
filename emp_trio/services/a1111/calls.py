"""The calls that a client makes of A1111, each with the care it needs (A1111 reference 10)."""

from __future__ import annotations

from typing import Any, Final, Literal, Unpack

import trio

from emp_trio.errors import ServiceError
from emp_trio.protocols.http import CallOptions, HttpClient, HttpResponse
from emp_trio.services.a1111.checkpoints import Checkpoint, read_checkpoints
from emp_trio.services.a1111.errors import login_page
from emp_trio.services.a1111.payload import Endpoint, documented_fields
from emp_trio.services.a1111.settings import A1111Settings
from emp_trio.services.a1111.status import State, Task, read_state, read_task

_BLOCKED: Final = (401, 403, 404, 405)  # what the servers and proxies without task routes say to them


class Calls:
    """The calls. All raise ServiceError, and none holds state.

    Args:
        http: the server.
        settings: its limits.
    """

    def __init__(self, http: HttpClient, settings: A1111Settings) -> None:
        self._http = http
        self._settings = settings

    async def generate(self, endpoint: Endpoint, body: dict[str, Any]) -> Any:
        """Make images, and wait for them however long it takes; a cancel does not stop the server (10.1).

        Returns:
            the JSON of the answer, decoded in a thread: it may be tens of megabytes.

        Raises:
            ServiceError: with ``maybe_started``, nobody knows whether it runs on.
        """
        answer = await self._request(
            "POST",
            f"/sdapi/v1/{endpoint}",
            json=body,
            expect="any",
            timeout=float("inf"),
            read_timeout=self._settings.answer_timeout,
        )
        try:
            return await trio.to_thread.run_sync(answer.json)
        except ServiceError as error:
            page = login_page(error)
            if page is None:
                raise
            raise page from error

    async def task(self, task_id: str) -> Task | None:
        """How the generation of that id is doing; None where the server, or a proxy before it, does not tell (10.3)."""
        body = {"id_task": task_id, "id_live_preview": -1, "live_preview": False}
        try:
            return read_task(await self._json("POST", "/internal/progress", json=body, idempotent=True, retries=0))
        except ServiceError as error:
            if error.status in _BLOCKED or error.type == "auth_error" or error.reason == "invalid_response_format":
                return None
            raise

    async def state(self) -> State:
        """Whatever runs. A preview is not asked for: it would slow that down (10.3)."""
        return read_state(
            await self._json("GET", "/sdapi/v1/progress", params={"skip_current_image": "true"}, retries=0)
        )

    async def interrupt(self) -> None:
        """Stop whatever runs: there is no id, so only while that is known to be ours (10.4)."""
        await self._request("POST", "/sdapi/v1/interrupt", expect="any", idempotent=True, retries=0)

    async def checkpoints(self) -> tuple[Checkpoint, ...]:
        """The models."""
        return read_checkpoints(await self._json("GET", "/sdapi/v1/sd-models"))

    async def memory(self) -> Any:
        """Memory in use: the lightest call, and one that never waits for a generation (10.4)."""
        return await self._json("GET", "/sdapi/v1/memory")

    async def documented_fields(self, endpoint: Endpoint) -> frozenset[str] | None:
        """Names of an endpoint's parameters, or None where the server does not say."""
        return documented_fields(await self._json("GET", "/openapi.json", retries=0), endpoint)

    async def _json(self, method: str, path: str, **options: Unpack[CallOptions]) -> Any:
        return (await self._request(method, path, **options)).json()

    async def _request(
        self, method: str, path: str, *, expect: Literal["json", "any"] = "json", **options: Unpack[CallOptions]
    ) -> HttpResponse:
        options.setdefault("timeout", self._settings.call_timeout)
        try:
            return await self._http.request(method, path, expect=expect, **options)
        except ServiceError as error:
            page = login_page(error)
            if page is None:
                raise
            raise page from error

"""``GeminiApi``: what belongs to every call of the Gemini API: the account, its address, its errors, health, models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import msgspec
import structlog
import trio

from emp_trio.errors import EmpTrioError, ServiceError
from emp_trio.protocols.auth import ApiKeyHeader, Auth
from emp_trio.protocols.http import HttpResponse
from emp_trio.protocols.parsing import Lenient, parse_or_empty
from emp_trio.services.connector import Health
from emp_trio.services.gemini.address import Address, choose_model, is_image_model, split_address
from emp_trio.services.gemini.errors import describe_error
from emp_trio.services.probing import not_told, probe

log = structlog.get_logger(__name__)

_MOST_MODELS = 1000  # the largest page that the list of models has


class _Model(msgspec.Struct, frozen=True):
    name: str


class _Models(msgspec.Struct, frozen=True):
    """The list of models; entries without a name are left out."""

    models: Lenient[list[Lenient[_Model]]] = []


class Caller(Protocol):
    """What is needed of a connector to make calls: ``GeminiApi`` and ``Http``."""

    settings: Any
    address: Address

    @property
    def request(self) -> Callable[..., Awaitable[HttpResponse]]:
        """:meth:`emp_trio.protocols.http.Http.request`."""


class GeminiApi:
    """Stands before ``Http`` among a connector's bases; its settings are ``self.settings.gemini``.

    Attributes:
        address: root and model of the configured address.
    """

    settings: Any
    address: Address

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Entered when the connector starts: reads the address, and says what is odd about it."""
        self.address = split_address(self.settings.http.base_url)
        _, warning = choose_model(None, self.settings.gemini.model, self.address.model)
        for text in (*self.address.warnings, *([warning] if warning else ())):
            log.warning(text)
        await trio.lowlevel.checkpoint()
        yield

    def auth(self) -> Auth:
        """The account's key, in a header: in a URL it would end up in logs."""
        return ApiKeyHeader("x-goog-api-key", self.settings.gemini.api_key)

    def describe_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
        """Errors as Gemini documents them."""
        return describe_error(status, headers, body)

    async def health(self: Caller) -> Health:
        """Whether the account can be used: the models can be listed, and there are some."""
        gemini = self.settings.gemini
        if gemini.health_path != "/models":
            path = gemini.health_path if gemini.health_path == "none" else self.address.root + gemini.health_path
            return await probe(self, path, timeout=gemini.call_timeout)
        try:
            found = await list_models(self)
        except EmpTrioError as error:
            return not_told(error) or Health(healthy=False, detail=error.message)
        return Health(healthy=bool(found), detail="" if found else "the account has no models")

    async def models(self: Caller) -> list[str]:
        """Models of the account that make images."""
        return [model for model in await list_models(self) if is_image_model(model)]


async def list_models(caller: Caller) -> list[str]:
    """Names of the models that the account can use, without ``models/``."""
    answer = await caller.request(
        "GET",
        f"{caller.address.root}/models",
        params={"pageSize": _MOST_MODELS},
        timeout=caller.settings.gemini.call_timeout,
    )
    return [model.name.removeprefix("models/") for model in parse_or_empty(_Models, answer.json()).models]

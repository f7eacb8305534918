"""``GeminiApi``: what belongs to every call of the Gemini API: the account, its address, its errors, health, models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import ClassVar, Final

import msgspec
import structlog
import trio

from emp_trio.errors import EmpTrioError, ServiceError
from emp_trio.protocols.auth import ApiKeyHeader, Auth
from emp_trio.protocols.http import Http, HttpClient
from emp_trio.protocols.parsing import Lenient, parse_or_empty
from emp_trio.protocols.part import ConnectorPart, PartSettings
from emp_trio.services.connector import Health
from emp_trio.services.gemini.address import Address, choose_model, is_image_model, split_address
from emp_trio.services.gemini.errors import describe_error
from emp_trio.services.gemini.settings import GeminiSettings
from emp_trio.services.probing import not_told, probe

log = structlog.get_logger(__name__)

_MOST_MODELS: Final = 1000  # the largest page that the list of models has


class _Model(msgspec.Struct, frozen=True):
    name: str


class _Models(msgspec.Struct, frozen=True):
    """The list of models; entries without a name are left out."""

    models: Lenient[list[Lenient[_Model]]] = []


class GeminiClient(msgspec.Struct, frozen=True, kw_only=True):
    """The Gemini API, as an account reaches it.

    Attributes:
        address: root and model of the configured address.
        gemini: the account, the model, and the time that an image may take.
    """

    http: HttpClient
    address: Address
    gemini: GeminiSettings

    async def list_models(self) -> list[str]:
        """Names of the models that the account can use, without ``models/``."""
        answer = await self.http.request(
            "GET",
            f"{self.address.root}/models",
            params={"pageSize": _MOST_MODELS},
            timeout=self.gemini.call_timeout,
        )
        return [model.name.removeprefix("models/") for model in parse_or_empty(_Models, answer.json()).models]


class GeminiApi(ConnectorPart):
    """Stands before ``Http`` among a connector's bases, with the :class:`GeminiSettings` among its settings; attaches
    ``self.client``."""

    part_settings: ClassVar[PartSettings] = GeminiSettings
    requires = (Http,)
    http: HttpClient
    client: GeminiClient

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Entered when the connector starts: reads the address, and says what is odd about it."""
        gemini, address = self.settings_of(GeminiSettings), split_address(self.http.settings.base_url)
        _, warning = choose_model(None, gemini.model, address.model)
        for text in (*address.warnings, *([warning] if warning else ())):
            log.warning(text)
        self.client = GeminiClient(http=self.http, address=address, gemini=gemini)
        await trio.lowlevel.checkpoint()
        yield

    def auth(self) -> Auth:
        """The account's key, in a header: in a URL it would end up in logs."""
        return ApiKeyHeader("x-goog-api-key", self.settings_of(GeminiSettings).api_key)

    def describe_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
        """Errors as Gemini documents them."""
        return describe_error(status, headers, body)

    async def health(self) -> Health:
        """Whether the account can be used: the models can be listed, and there are some."""
        gemini = self.client.gemini
        if gemini.health_path != "/models":
            path = gemini.health_path if gemini.health_path == "none" else self.client.address.root + gemini.health_path
            return await probe(self.http, path, timeout=gemini.call_timeout)
        try:
            found = await self.client.list_models()
        except EmpTrioError as error:
            return not_told(error) or Health(healthy=False, detail=error.message)
        return Health(healthy=bool(found), detail="" if found else "the account has no models")

    async def models(self) -> list[str]:
        """Models of the account that make images."""
        return [model for model in await self.client.list_models() if is_image_model(model)]

"""``OpenAIApi``: what every connector of the OpenAI API has in common: the account, its errors, health and models."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.protocols.auth import Auth, Bearer
from emp_trio.protocols.http import HttpClient
from emp_trio.protocols.parsing import Lenient, parse_or_empty
from emp_trio.protocols.part import ConnectorPart, PartSettings
from emp_trio.services.connector import Health
from emp_trio.services.openai.errors import answered_error, describe_error
from emp_trio.services.openai.models import SHUTDOWNS
from emp_trio.services.openai.rate_headers import exhausted_for
from emp_trio.services.openai.settings import AccountSettings
from emp_trio.services.probing import not_told, probe


class _Model(msgspec.Struct, frozen=True):
    id: Lenient[str] = ""
    shutdown_date: Lenient[str] = ""


class _Models(msgspec.Struct, frozen=True):
    """The list of models."""

    data: Lenient[list[Lenient[_Model]]] = []


class OpenAIApi(ConnectorPart):
    """Stands before ``Http`` among a connector's bases, with the :class:`AccountSettings` among its settings."""

    part_settings: ClassVar[PartSettings] = AccountSettings
    http: HttpClient

    @property
    def account(self) -> AccountSettings:
        """The account that calls are made with."""
        return self.settings_of(AccountSettings)

    def auth(self) -> Auth:
        """The account's key."""
        return Bearer(self.account.api_key)

    def describe_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
        """Errors as OpenAI documents them."""
        return describe_error(status, headers, body)

    def error_in(self, value: Any) -> ServiceError | None:
        """Errors under a good status, as gateways send them: out of credit, refused by moderation, too many calls."""
        return answered_error(value)

    def answered(self, headers: Mapping[str, str]) -> None:
        """An answer that used up a window of the account's rate limits: no new work before the window is renewed."""
        wait = exhausted_for(headers)
        if wait is not None and self.limiter is not None:
            self.limiter.slow_down(wait)

    async def health(self) -> Health:
        """Whether the account can be used: the models can be listed, and there are some."""
        account = self.account

        def judge(listed: Any) -> Health:
            found = bool(_listed(listed))
            return Health(healthy=found, detail="" if found else "the account has no models")

        return await probe(
            self.http,
            account.health_path,
            judge if account.health_path == "/models" else None,
            timeout=account.call_timeout,
        )

    async def model_ids(self) -> list[str]:
        """Ids of the models that the account can use."""
        listed = await _models(self.http, self.account)
        return [model.id for model in listed if model.id]

    async def retirements(self) -> Mapping[str, datetime.date]:
        """Last days of the models that the settings name (OpenAI reference 1): the service's word, else what
        is known."""
        parts = (self.settings, *msgspec.structs.asdict(self.settings).values())
        fields = [(part, name) for part in parts for name in ("model", "image_model")]
        used = {getattr(part, name) for part, name in fields if hasattr(part, name)}
        found = {name: SHUTDOWNS[name] for name in used & SHUTDOWNS.keys()}
        try:
            listed = await _models(self.http, self.account)
        except ServiceError as error:
            if not_told(error) is None:
                raise
            listed = []
        for model in listed:
            if model.id in used:
                with suppress(ValueError):
                    found[model.id] = datetime.date.fromisoformat(model.shutdown_date)
        return found


async def _models(http: HttpClient, account: AccountSettings) -> list[_Model]:
    answer = await http.request("GET", "/models", timeout=account.call_timeout)
    return _listed(answer.json())


def _listed(listed: Any) -> list[_Model]:
    return parse_or_empty(_Models, listed).data

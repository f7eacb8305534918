"""A service without a route for health is not ill: it does not tell, and its jobs run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ServiceError
from emp_trio.mapping import load_mapping, plan
from emp_trio.protocols.http import HttpSettings
from emp_trio.secrets import Secret
from emp_trio.services.a1111.connector import A1111WebSocketConnector
from emp_trio.services.a1111.settings import A1111Settings
from emp_trio.services.connector import Connector, Health, open_connector
from emp_trio.services.gemini.connector import GeminiConnector
from emp_trio.services.gemini.settings import GeminiSettings
from emp_trio.services.limited import LimitedServiceConnector
from emp_trio.services.ollama.connector import OllamaConnector
from emp_trio.services.ollama.errors import describe_error, is_missing_model
from emp_trio.services.ollama.settings import OllamaSettings
from emp_trio.services.openai.chat.text import OpenAITextConnector
from emp_trio.services.openai.chat.text_simple import OpenAITextSimpleConnector
from emp_trio.services.openai.images.img2img import OpenAIImg2ImgConnector
from emp_trio.services.openai.images.text2img import OpenAIText2ImgConnector
from emp_trio.services.openai.responses.connector import OpenAIResponsesConnector
from emp_trio.services.openai.settings import AccountSettings, OpenAISettings
from emp_trio.services.probing import not_told
from emp_trio.services.registry import find_connector
from emp_trio.services.simulation.http import SimulationHttpConnector
from emp_trio.testing.faulty_server import Answer, open_faulty_server, reply
from tests.services.rest.support import NOW, configured

KEY = Secret("sk-probing-0123456789")


def reached(url: str) -> HttpSettings:
    return HttpSettings(base_url=url, retry_delay=0.001, max_retries=0)


Make = Callable[..., Any]

CONNECTORS: dict[type[Connector], Make] = {
    **{
        cls: lambda url, cls=cls, **own: cls.Settings(openai=OpenAISettings(api_key=KEY, **own), http=reached(url))
        for cls in (OpenAIResponsesConnector, OpenAIText2ImgConnector, OpenAIImg2ImgConnector)
    },
    **{
        cls: lambda url, cls=cls, **own: cls.Settings(openai=AccountSettings(api_key=KEY, **own), http=reached(url))
        for cls in (OpenAITextConnector, OpenAITextSimpleConnector)
    },
    GeminiConnector: lambda url, **own: GeminiConnector.Settings(
        gemini=GeminiSettings(api_key=KEY, **own), http=reached(url)
    ),
    OllamaConnector: lambda url, **own: OllamaConnector.Settings(ollama=OllamaSettings(**own), http=reached(url)),
    A1111WebSocketConnector: lambda url, **own: A1111WebSocketConnector.Settings(
        a1111=A1111Settings(**own), http=reached(url)
    ),
    LimitedServiceConnector: lambda url, **own: LimitedServiceConnector.Settings(http=reached(url), **own),
    SimulationHttpConnector: lambda url, **own: SimulationHttpConnector.Settings(http=reached(url), **own),
}
SETTABLE = [cls for cls in CONNECTORS if cls is not SimulationHttpConnector]


async def health(
    cls: type[Connector], connector_context: ConnectorContext, *answers: Answer, **own: Any
) -> tuple[Health, list[str]]:
    """What a connector finds, and which paths it asked for."""
    async with open_faulty_server(*answers) as faulty:
        async with open_connector(cls, CONNECTORS[cls](faulty.url, **own), connector_context) as connector:
            found = await connector.health()
        return found, [request.target.partition("?")[0] for request in faulty.requests]


@pytest.mark.parametrize("cls", [cls for cls in CONNECTORS if cls is not A1111WebSocketConnector])
@pytest.mark.parametrize("status", [404, 405, 501])
@pytest.mark.parametrize("body", [b"404 page not found", b'{"error": "not found"}', b'{"detail":"Not Found"}'])
async def test_no_route_is_no_illness(
    connector_context: ConnectorContext, cls: type[Connector], status: int, body: bytes
) -> None:
    found, asked = await health(cls, connector_context, reply(status, body))
    assert (found.healthy, found.told, bool(asked)) == (True, False, True)
    assert "does not tell" in found.detail
    assert "pull" not in found.detail


async def test_a_fork_of_a1111_without_the_question_has_models_at_least(connector_context: ConnectorContext) -> None:
    found, asked = await health(A1111WebSocketConnector, connector_context, reply(404), reply(200, json=[]))
    assert (found.healthy, found.told) == (True, False)
    assert asked == ["/sdapi/v1/memory", "/sdapi/v1/sd-models"]


@pytest.mark.parametrize("cls", CONNECTORS)
@pytest.mark.parametrize("status", [401, 403, 400, 500, 502, 503])
async def test_other_answers_stay_illness(
    connector_context: ConnectorContext, cls: type[Connector], status: int
) -> None:
    found, _ = await health(cls, connector_context, reply(status))
    assert (found.healthy, bool(found.detail)) == (False, True)


@pytest.mark.parametrize("cls", SETTABLE)
async def test_a_setting_chooses_the_path_or_none(connector_context: ConnectorContext, cls: type[Connector]) -> None:
    found, asked = await health(cls, connector_context, reply(500), health_path="none")
    assert (found.healthy, found.told, asked) == (True, False, [])
    found, asked = await health(cls, connector_context, reply(200, b"ok"), reply(404), health_path="/live")
    assert found.healthy
    assert asked[0].endswith("/live")
    found, _ = await health(cls, connector_context, reply(503), health_path="/live")
    assert not found.healthy


@pytest.mark.parametrize(("status", "healthy", "told"), [(200, True, True), (404, True, False), (503, False, True)])
async def test_a_rest_service(connector_context: ConnectorContext, status: int, healthy: bool, told: bool) -> None:
    async with open_faulty_server(reply(status)) as faulty:
        settings = configured("RestSyncConnector", NOW | {"base_url": faulty.url, "max_retries": 0})
        found_class = find_connector("RestSyncConnector")
        assert found_class is not None
        async with open_connector(found_class, settings, connector_context) as connector:
            found = await connector.health()
    assert (found.healthy, found.told) == (healthy, told)


async def test_retirements_need_no_list_of_models(connector_context: ConnectorContext) -> None:
    async with open_faulty_server(reply(404)) as faulty:
        settings = CONNECTORS[OpenAITextConnector](faulty.url)
        async with open_connector(OpenAITextConnector, settings, connector_context) as connector:
            await connector.retirements()


def test_a_path_that_ollama_does_not_know_is_no_missing_model() -> None:
    unknown = describe_error(404, {}, b'{"error": "not found"}')
    missing = describe_error(404, {}, b'{"error": "model \\"x\\" not found, try pulling it first"}')
    assert (is_missing_model(unknown), is_missing_model(missing)) == (False, True)
    assert "pull" not in unknown.message
    assert not_told(ServiceError("x", status=401)) is None


def test_the_path_can_be_set_by_the_environment() -> None:
    env = {"CLOUD_STORAGE_PROVIDER": "local", "OLLAMA_HEALTH_PATH": "none"}
    made = plan(load_mapping(None).checked(), "ollama", env=env, gpus=0, find_connector=find_connector)
    assert made.services["ollama"].settings.ollama.health_path == "none"

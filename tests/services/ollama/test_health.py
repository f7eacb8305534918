"""Whether the server can take jobs, and where it is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ConfigError
from emp_trio.mapping import load_mapping, plan
from emp_trio.secrets import Secret
from emp_trio.services.ollama.connector import OllamaConnector
from emp_trio.services.ollama.settings import OllamaSettings, server_url
from emp_trio.services.registry import find_connector
from emp_trio.testing.faulty_server import hang, open_faulty_server, reply
from emp_trio.testing.ollama import FakeOllama
from tests.services.ollama.support import open_ollama


@pytest.mark.parametrize(
    ("settings", "healthy", "says"),
    [
        ({}, True, ""),
        ({"model": "llama3.2:latest"}, True, ""),
        ({"model": "llama3.2:1b"}, False, "ollama pull llama3.2:1b"),
        ({"model": "tinyllama", "auto_pull": "tinyllama:latest"}, True, "will be pulled"),
        ({"model": "tinyllama", "auto_pull": "tinyllama:1b"}, False, "OLLAMA_AUTO_PULL"),
    ],
)
async def test_the_configured_model_must_be_there_or_on_its_way(
    ollama: FakeOllama, connector_context: ConnectorContext, settings: dict[str, Any], healthy: bool, says: str
) -> None:
    async with open_ollama(ollama.base_url, connector_context, **settings) as connector:
        health = await connector.health()
    assert (health.healthy, says in health.detail) == (healthy, True)
    assert [request.route for request in ollama.requests] == ["version", "tags"]
    assert bool(health.detail) is bool(says)


async def test_a_server_that_fails_is_not_healthy(ollama: FakeOllama, connector_context: ConnectorContext) -> None:
    ollama.inject("tags", status=500, message="the store is broken", times=9)
    async with open_ollama(ollama.base_url, connector_context, http={"retry_delay": 0.001}) as connector:
        health = await connector.health()
    assert not health.healthy
    assert "the store is broken" in health.detail


async def test_a_silent_server_is_not_healthy_after_its_time(connector_context: ConnectorContext) -> None:
    async with (
        open_faulty_server(hang()) as faulty,
        open_ollama(faulty.url, connector_context, call_timeout=0.2) as connector,
    ):
        health = await connector.health()
    assert not health.healthy
    assert "0.2 s" in health.detail


@pytest.mark.parametrize("body", [{"ok": True}, [], "0.13.0", {"version": ""}])
async def test_another_service_is_not_ollama(connector_context: ConnectorContext, body: Any) -> None:
    async with (
        open_faulty_server(reply(200, json=body)) as faulty,
        open_ollama(faulty.url, connector_context) as connector,
    ):
        health = await connector.health()
    assert not health.healthy
    assert "OLLAMA_BASE_URL" in health.detail


def settings(**env: str) -> Any:
    env |= {"CLOUD_STORAGE_PROVIDER": "local"}
    made = plan(load_mapping(None).checked(), "ollama", env=env, gpus=0, find_connector=find_connector)
    return made.services["ollama"].settings


@pytest.mark.parametrize(
    ("env", "url"),
    [
        ({}, "http://localhost:11434"),
        ({"OLLAMA_PORT": "1234"}, "http://localhost:1234"),
        ({"OLLAMA_HOST": "gpu"}, "http://gpu:11434"),
        ({"OLLAMA_HOST": " "}, "http://localhost:11434"),
        ({"OLLAMA_HOST": "gpu", "OLLAMA_PORT": "1234"}, "http://gpu:1234"),
        ({"OLLAMA_HOST": "gpu", "OLLAMA_BASE_PORT": "1235"}, "http://gpu:1235"),
        ({"OLLAMA_HOST": "gpu:99", "OLLAMA_PORT": "1234"}, "http://gpu:99"),
        ({"OLLAMA_HOST": "https://gpu/ollama/"}, "https://gpu/ollama"),
        ({"OLLAMA_HOST": "[::1]:99"}, "http://[::1]:99"),
        ({"OLLAMA_HOST": ":56789"}, "http://127.0.0.1:56789"),
        ({"OLLAMA_HOST": "gpu:99/ollama/"}, "http://gpu:99/ollama"),
        ({"OLLAMA_HOST": "gpu/ollama", "OLLAMA_PORT": "1234"}, "http://gpu:1234/ollama"),
        ({"OLLAMA_HOST": "gpu/"}, "http://gpu:11434"),
        ({"OLLAMA_HOST": "[::1]"}, "http://[::1]:11434"),
        ({"OLLAMA_HOST": "[::1]:99/x"}, "http://[::1]:99/x"),
        ({"OLLAMA_HOST": "0.0.0.0"}, "http://127.0.0.1:11434"),
        ({"OLLAMA_HOST": "0.0.0.0:99"}, "http://127.0.0.1:99"),
        ({"OLLAMA_HOST": "http://0.0.0.0:99"}, "http://127.0.0.1:99"),
        ({"OLLAMA_HOST": "[::]:99"}, "http://[::1]:99"),
        ({"OLLAMA_HOST": "http://:99"}, "http://127.0.0.1:99"),
        ({"OLLAMA_HOST": "https://gpu"}, "https://gpu"),
        ({"OLLAMA_BASE_URL": "https://ollama.example", "OLLAMA_HOST": "gpu"}, "https://ollama.example"),
    ],
)
def test_where_the_server_is(env: dict[str, str], url: str) -> None:
    assert settings(**env).http.base_url == url


@pytest.mark.parametrize("address", ["", "a b/c", "gpu:port", "gpu:99999", "me:secret@gpu"])
def test_an_address_that_is_none_is_said_before_the_start(address: str) -> None:
    with pytest.raises(ValueError, match="host:port") as caught:
        server_url(address, 11434)
    assert "secret" not in str(caught.value)
    if address:
        with pytest.raises(ConfigError, match="host:port"):
            settings(OLLAMA_HOST=address)


@pytest.mark.parametrize(
    ("variable", "value", "path", "expected"),
    [
        ("OLLAMA_DEFAULT_MODEL", "qwen3", "ollama.model", "qwen3"),
        ("OLLAMA_AUTO_PULL", "a,b:1b", "ollama.auto_pull", "a,b:1b"),
        ("OLLAMA_API_KEY", "key-1234", "ollama.api_key", Secret("key-1234")),
        ("OLLAMA_MAX_CONCURRENT_JOBS", "4", "limits.max_concurrent_jobs", 4),
        ("OLLAMA_TIMEOUT_SECONDS", "600", "http.timeout", 600),
        ("OLLAMA_TIMEOUT_SECONDS", "600", "http.read_timeout", 600),
        ("OLLAMA_RETRY_ATTEMPTS", "1", "http.max_retries", 1),
    ],
)
def test_a_variable_reaches_its_setting(variable: str, value: str, path: str, expected: Any) -> None:
    found = settings(**{variable: value})
    for name in path.split("."):
        found = getattr(found, name)
    assert found == expected


def test_the_defaults_are_those_of_the_reference() -> None:
    made = settings()
    assert (made.http.timeout, made.http.connect_timeout, made.http.max_retries) == (300, 5, 3)
    assert (made.ollama.model, made.ollama.api_key) == ("llama3.2", Secret(""))
    times = msgspec.structs.asdict(OllamaSettings())
    assert {name: times[name] for name in times if name.endswith("timeout")} == {
        "line_timeout": 120,
        "embed_timeout": 120,
        "call_timeout": 5,
        "pull_line_timeout": 60,
    }
    assert made.limits.max_concurrent_jobs == 1
    assert OllamaConnector.service_type == "ollama"

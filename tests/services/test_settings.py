"""The connectors' settings come out of the shipped mapping and the environment variables that operators know."""

from __future__ import annotations

from typing import Any

import pytest

from emp_trio.mapping import load_mapping, plan
from emp_trio.secrets import Secret
from emp_trio.services.registry import find_connector

REQUIRED = {
    "OPENAI_API_KEY": "sk-test-12345678",
    "OPENAI_IMAGE_MODEL": "gpt-image-2",
    "CLOUD_STORAGE_PROVIDER": "local",
}


def settings(service: str, **env: str) -> Any:
    workers = "openai" if service.startswith("openai") else service
    made = plan(load_mapping(None).checked(), workers, env=REQUIRED | env, gpus=0, find_connector=find_connector)
    return made.services[service].settings


@pytest.mark.parametrize(
    ("service", "variable", "value", "path", "expected"),
    [
        ("simulation-http", "SIMULATION_HTTP_URL", "http://sim:1", "http.base_url", "http://sim:1"),
        ("simulation-http", "WORKER_SIMULATION_STEPS", "3", "simulation.steps", 3),
        ("simulation-http", "WORKER_SIMULATION_PROCESSING_TIME", "2.5", "simulation.processing_time", 2.5),
        ("simulation-websocket", "SIMULATION_WEBSOCKET_URL", "ws://s:1", "websocket.url", "ws://s:1"),
        ("openai-image", "OPENAI_BASE_URL", "http://proxy/v1", "http.base_url", "http://proxy/v1"),
        ("openai-image", "OPENAI_MAX_RETRIES", "7", "http.max_retries", 7),
        ("openai-image", "OPENAI_TIMEOUT_SECONDS", "90", "http.timeout", 90),
        ("openai-image", "OPENAI_RESPONSES_MODEL", "gpt-6.2-sol", "openai.model", "gpt-6.2-sol"),
        ("openai-image", "OPENAI_IMAGE_MODEL", "gpt-image-x", "image_model", "gpt-image-x"),
        ("openai-image", "OPENAI_IMAGE_QUALITY", "hd", "quality", "hd"),
        ("openai-image", "OPENAI_POLL_TIMEOUT", "600", "openai.poll_timeout", 600),
        ("openai-image", "OPENAI_ORG_ID", "org-1", "openai.organization", "org-1"),
        ("openai-responses", "OPENAI_RETRY_ATTEMPTS", "5", "http.max_retries", 5),
        ("openai-text", "OPENAI_TEXT_MODEL", "gpt-6.2-sol", "chat.model", "gpt-6.2-sol"),
        ("openai-text", "OPENAI_MAX_TOKENS", "4000", "chat.max_tokens", 4000),
        ("openai-text", "OPENAI_TIMEOUT_SECONDS", "90", "http.timeout", 90),
        ("openai-text", "OPENAI_PROJECT_ID", "proj-1", "openai.project", "proj-1"),
    ],
)
def test_a_variable_reaches_its_setting(service: str, variable: str, value: str, path: str, expected: Any) -> None:
    found = settings(service, **({"OPENAI_BASE_URL": "http://x/v1"} | {variable: value}))
    for name in path.split("."):
        found = getattr(found, name)
    assert found == expected


def test_the_defaults_are_those_of_the_references() -> None:
    image = settings("openai-image", OPENAI_BASE_URL="https://api.openai.com/v1")
    assert image.openai.model == "gpt-6-luna"
    assert image.openai.api_key == Secret("sk-test-12345678")
    assert (image.openai.poll_timeout, image.polling.interval, image.polling.errors_in_a_row) == (300, 2, 4)
    assert (image.size, image.quality) == ("1024x1024", "standard")
    text = settings("openai-text", OPENAI_BASE_URL="https://api.openai.com/v1")
    assert (text.chat.model, text.chat.max_tokens) == ("gpt-6-luna", None)
    assert (text.http.timeout, text.http.read_timeout) == (300, 120)
    http = settings("simulation-http")
    assert http.http.base_url == "http://localhost:8299"
    assert (http.polling.interval, http.polling.attempts) == (1, 120)
    assert settings("simulation-websocket").websocket.url == "ws://localhost:8399"

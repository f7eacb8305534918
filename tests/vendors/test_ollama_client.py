"""Ollama's client against its fake, and its way to read ``OLLAMA_HOST`` beside ours."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from emp_trio.services.ollama.settings import server_url

from .support import simulated

ollama = pytest.importorskip("ollama", reason="Ollama's client is not installed: nox -s clients has it")

MESSAGES = [{"role": "user", "content": "hi"}]
DEFAULT_PORTS = {"http": 80, "https": 443}


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with simulated("ollama") as environment:
        client = ollama.Client(host=environment["OLLAMA_BASE_URL"])
        with client._client:  # its pool, which not every version closes
            yield client


def test_models(client: Any) -> None:
    assert "llama3.2:latest" in [model.model for model in client.list().models]


@pytest.mark.parametrize("stream", [False, True])
def test_words(client: Any, stream: bool) -> None:
    answer = client.generate("llama3.2", "hi", stream=stream)
    last = list(answer)[-1] if stream else answer
    assert last.done
    assert last.done_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_chat(client: Any, stream: bool) -> None:
    answer = client.chat("llama3.2", MESSAGES, stream=stream)
    assert (list(answer)[-1] if stream else answer).done


def test_embeddings(client: Any) -> None:
    assert len(client.embed("nomic-embed-text", ["a", "b"]).embeddings) == 2


def test_a_pull(client: Any) -> None:
    assert list(client.pull("tinyllama", stream=True))[-1].status == "success"


HOSTS = (
    "1.2.3.4 :56789 1.2.3.4:56789 http://1.2.3.4 https://1.2.3.4 https://1.2.3.4:56789 example.com example.com:56789 "
    "http://example.com https://example.com https://example.com:56789 example.com/ example.com:56789/ example.com/path "
    "example.com:56789/path https://example.com:56789/path example.com:56789/path/ [1:2:3:4::1] [1:2:3:4::1]:56789 "
    "http://[0001:2:3:4::1] https://[1:2:3:4::1]:56789 [1:2:3:4::1]/ [1:2:3:4::1]:56789/path/ http://:56789 "
    "localhost"
).split()


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_is_read_as_the_vendors_client_reads_it(host: str) -> None:
    theirs = urlsplit(importlib.import_module("ollama._client")._parse_host(host))
    ours = urlsplit(server_url(host, 11434))
    port = ours.port or DEFAULT_PORTS[ours.scheme]
    assert (ours.scheme, ours.hostname, port, ours.path) == (theirs.scheme, theirs.hostname, theirs.port, theirs.path)

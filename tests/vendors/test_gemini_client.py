"""Google's client against the fake of Gemini."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from .support import simulated

genai = pytest.importorskip("google.genai", reason="Google's client is not installed: nox -s clients has it")

MODEL = "gemini-3.1-flash-image"


@pytest.fixture(scope="module", params=["v1", "v1beta"])
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    with simulated("gemini") as environment:
        options = {"base_url": environment["GEMINI_NANO_BANANA_URL"], "api_version": request.param}
        with genai.Client(api_key=environment["GEMINI_API_KEY"], http_options=options) as client:
            yield client


def test_models(client: Any) -> None:
    assert f"models/{MODEL}" in [model.name for model in client.models.list()]


def test_generate_content(client: Any) -> None:
    config = {"response_modalities": ["TEXT", "IMAGE"]}
    answer = client.models.generate_content(model=MODEL, contents="a cat", config=config)
    parts = answer.candidates[0].content.parts
    assert parts[-1].inline_data.data.startswith(b"\x89PNG")
    assert answer.usage_metadata.total_token_count > 0


def test_an_interaction(client: Any) -> None:
    asked = {"response_format": {"type": "image", "delivery": "inline"}, "background": True, "store": True}
    begun = client.interactions.create(model=MODEL, input="a cat", **asked)
    assert begun.status in ("queued", "in_progress")
    found = begun
    for _ in range(1000):
        found = client.interactions.get(begun.id)
        if found.status not in ("queued", "in_progress"):
            break
    assert found.status == "completed"
    images = [part.data for step in found.steps if step.type == "model_output" for part in step.content]
    assert base64.b64decode(images[-1]).startswith(b"\x89PNG")
    assert client.interactions.cancel(begun.id).status == "completed"
    client.interactions.delete(begun.id)

"""OpenAI's Python client in its strict mode, in which every member of every answer is validated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from emp_trio.testing.png import make_png

from .support import simulated

openai = pytest.importorskip("openai", reason="OpenAI's client is not installed: nox -s clients has it")

MODEL = "gpt-6-luna"
DRAW: dict[str, Any] = {"type": "image_generation", "model": "gpt-image-2.6-flare"}
ASKED: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
CAT: dict[str, Any] = {"model": "gpt-image-2.6-flare", "prompt": "a cat"}
FUNCTION: dict[str, Any] = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with simulated("openai") as environment:
        strict = openai.OpenAI(
            base_url=environment["OPENAI_BASE_URL"],
            api_key=environment["OPENAI_API_KEY"],
            _strict_response_validation=True,
            max_retries=0,
        )
        with strict:
            yield strict


CALLS: dict[str, Callable[[Any], Any]] = {
    "models": lambda c: c.models.list(),
    "chat": lambda c: c.chat.completions.create(**ASKED),
    "chat with a function": lambda c: c.chat.completions.create(**ASKED, tools=[FUNCTION], reasoning_effort="none"),
    "response": lambda c: c.responses.create(model=MODEL, input="hi"),
    "response with settings": lambda c: c.responses.create(
        model=MODEL, input="hi", instructions="Be brief.", max_output_tokens=99, metadata={"a": "b"}
    ),
    "image of a response": lambda c: c.responses.create(model=MODEL, input="a cat", tools=[DRAW]),
    "images": lambda c: c.images.generate(**CAT, n=2),
    "edited image": lambda c: c.images.edit(**CAT, image=("cat.png", make_png(), "image/png")),
}
STREAMS: dict[str, Callable[[Any], Any]] = {
    "chat": lambda c: c.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True}),
    "response": lambda c: c.responses.create(model=MODEL, input="hi", stream=True),
    "response in the background": lambda c: c.responses.create(model=MODEL, input="hi", stream=True, background=True),
    "image of a response": lambda c: c.responses.create(
        model=MODEL, input="a cat", stream=True, tools=[DRAW | {"partial_images": 2}]
    ),
    "image": lambda c: c.images.generate(**CAT, stream=True, partial_images=2),
    "edited image": lambda c: c.images.edit(
        **CAT, image=("cat.png", make_png(), "image/png"), stream=True, partial_images=1
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_answer_is_one_to_the_vendors_client(client: Any, name: str) -> None:
    assert CALLS[name](client) is not None


@pytest.mark.parametrize("name", STREAMS)
def test_every_event_is_one_to_the_vendors_client(client: Any, name: str) -> None:
    assert len(list(STREAMS[name](client))) > 1


def test_a_response_in_the_background(client: Any) -> None:
    response = client.responses.create(model=MODEL, input="hi", background=True)
    assert response.status in ("queued", "in_progress")
    assert client.responses.cancel(response.id).status == "cancelled"
    assert client.responses.retrieve(response.id).status == "cancelled"
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)

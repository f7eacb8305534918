"""Images of the Images API that the answer only points to, or that are broken, on the wire."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ServiceError
from emp_trio.protocols.fetch import FetchSettings
from emp_trio.services.openai.images.text2img import OpenAIText2ImgConnector
from emp_trio.testing.attempt import run_job
from emp_trio.testing.faulty_server import open_faulty_server, reply
from emp_trio.testing.openai import FakeOpenAI
from emp_trio.testing.png import make_png
from tests.services.openai.support import open_openai
from tests.services.support import job


def links(openai: FakeOpenAI, *entries: Any) -> None:
    openai.inject("images", body=msgspec.json.encode({"created": 1, "data": list(entries)}), status=200)


@pytest.mark.parametrize("private", [False, True])
async def test_a_image_behind_a_foreign_address_is_fetched_by_the_guarded_way(
    openai: FakeOpenAI, connector_context: ConnectorContext, private: bool
) -> None:
    async with (
        open_faulty_server(reply(503), reply(200, make_png(), content_type="image/png")) as cdn,
        open_openai(
            OpenAIText2ImgConnector,
            openai,
            connector_context,
            own={"fetch": FetchSettings(input_allow_private=private)},
        ) as connector,
    ):
        links(openai, {"url": f"{cdn.url}/made.png?sig=s3cret"})
        payload = {"prompt": "a cat", "approach": "direct"}
        if not private:
            with pytest.raises(ServiceError, match="can't be had") as caught:
                await run_job(connector, job(payload))
            assert "s3cret" not in caught.value.message
            assert (caught.value.retry, caught.value.maybe_started, cdn.requests) == (False, True, [])
            return
        result = await run_job(connector, job(payload))
        assert [file.mime_type for file in result.output_files] == ["image/png"]
        assert openai.count("images") == 1
        assert len(cdn.requests) == 2
        assert openai.api_key.reveal().encode() not in cdn.requests[1].head


async def test_what_is_broken_of_several_images_is_left_out_and_named(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    good = base64.b64encode(make_png()).decode()
    async with open_openai(OpenAIText2ImgConnector, openai, connector_context) as connector:
        links(
            openai, {"b64_json": "*"}, {"b64_json": good}, {"url": "http://169.254.169.254/"}, {"revised_prompt": "x"}
        )
        result = await run_job(connector, job({"prompt": "a cat", "approach": "direct", "n": 4}))
    assert len(result.output_files) == 1
    said = result.metadata["warnings"]
    assert ["output 1 of 3" in said[0], "output 3 of 3" in said[1], said[2]] == [
        True,
        True,
        "4 images were asked for, 1 came",
    ]
    assert openai.count("images") == 1

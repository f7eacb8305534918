"""The address and the model, as the fleet configures them (connector reference 7; Gemini reference A1, A2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from emp_trio.connector_context import ConnectorContext
from emp_trio.services.gemini.address import choose_model, is_image_model, split_address
from emp_trio.testing.attempt import run_job
from emp_trio.testing.gemini import FakeGemini
from tests.services.gemini.support import forms, open_gemini
from tests.services.support import job

HOST = "https://generativelanguage.googleapis.com"
V1BETA = f"{HOST}/v1beta"


@pytest.mark.parametrize(
    ("url", "root", "model"),
    [
        (HOST, V1BETA, ""),
        (f"{HOST}/", V1BETA, ""),
        (V1BETA, V1BETA, ""),
        (f"{V1BETA}/", V1BETA, ""),
        (f"{V1BETA}/models", V1BETA, ""),
        (f"{V1BETA}/models/", V1BETA, ""),
        (f"{V1BETA}/interactions", V1BETA, ""),
        (f"{V1BETA}/models/gemini-3-pro-image", V1BETA, "gemini-3-pro-image"),
        (f"{V1BETA}/models/gemini-3-pro-image:generateContent", V1BETA, "gemini-3-pro-image"),
        (f"{V1BETA}/models/gemini-3-pro-image:streamGenerateContent?alt=sse", V1BETA, "gemini-3-pro-image"),
        (f"{V1BETA}/models/gemini-3-pro-image:generateContent?key=AIzaSecret", V1BETA, "gemini-3-pro-image"),
        ("http://proxy:8080/gemini", "http://proxy:8080/gemini/v1beta", ""),
        ("http://proxy:8080/gemini/v1beta/models/m-1:generateContent", "http://proxy:8080/gemini/v1beta", "m-1"),
        ("http://127.0.0.1:8599", "http://127.0.0.1:8599/v1beta", ""),
        (f"{HOST}/v1/models/m:generateContent", f"{HOST}/v1", "m"),
    ],
)
def test_an_address_is_split(url: str, root: str, model: str) -> None:
    found = split_address(url)
    assert (found.root, found.model) == (root, model)
    assert any("query" in warning for warning in found.warnings) == ("?" in url)
    assert any("v1beta" in warning for warning in found.warnings) == ("/v1/" in url)
    assert "AIza" not in repr(found)


@given(st.text(max_size=40))
def test_any_path_gives_a_root(path: str) -> None:
    assert split_address("https://host/" + path.replace("?", "").replace("#", "")).root.startswith("https://host")


@pytest.mark.parametrize(
    ("asked", "configured", "in_address", "model", "said"),
    [
        (None, "", "", "gemini-nano-banana-2.1", ""),
        (None, "", "gemini-3-pro-image", "gemini-3-pro-image", ""),
        (None, "gemini-2.5-flash-image", "", "gemini-2.5-flash-image", ""),
        (None, "gemini-2.5-flash-image", "gemini-3-pro-image", "gemini-2.5-flash-image", "is configured and used"),
        ("models/new-image", "gemini-2.5-flash-image", "gemini-3-pro-image", "new-image", ""),
        ("imagen-4.0-generate-001", "", "", "gemini-nano-banana-2.1", "was shut down in August 2026"),
        (None, "", "imagen-4.0-ultra-generate-001", "gemini-nano-banana-2.1", "was shut down in August 2026"),
    ],
)
def test_the_model_is_chosen(asked: str | None, configured: str, in_address: str, model: str, said: str) -> None:
    found, warning = choose_model(asked, configured, in_address)
    assert found == model
    assert said in warning
    assert bool(said) == bool(warning)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("gemini-nano-banana-2.1", True),
        ("gemini-3-pro-image-preview", True),
        ("gemini-3.1-flash", False),
        ("imagen-4.0", False),
    ],
)
def test_names_of_image_models(name: str, image: bool) -> None:
    assert is_image_model(name) is image


@forms
async def test_a_complete_address_of_the_old_fleet_works(
    gemini: FakeGemini, connector_context: ConnectorContext, api: str
) -> None:
    url = f"{gemini.base_url}/v1beta/models/gemini-2.5-flash-image:generateContent?key={gemini.api_key.reveal()}"
    with capture_logs() as logs:
        async with open_gemini(gemini, connector_context, api=api, http={"base_url": url}) as connector:
            result = await run_job(connector, job({"prompt": "a cat"}))
            assert (await connector.health()).healthy
    assert result.data["model_used"].startswith("gemini-2.5-flash-image")
    assert any("the query of GEMINI_NANO_BANANA_URL is left out" in entry["event"] for entry in logs)
    assert gemini.api_key.reveal() not in str(logs)

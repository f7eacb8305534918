"""Input files of jobs, however they are given."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import InvalidJob, ServiceError
from emp_trio.protocols.fetch import Fetched, FetchSettings
from emp_trio.services.inputs import InputFile, input_file, is_url
from emp_trio.testing.png import make_png

PNG = make_png()
JPEG = b"\xff\xd8\xff\xe0" + bytes(100)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<!doctype html><title>Sign in</title>"


class FakeFetcher:
    """A fetcher that has the file already; the real one is tested in tests/protocols/fetch/test_fetch.py."""

    def __init__(self, data: bytes = PNG, name: str = "", max_bytes: int = 10**6) -> None:
        self.settings = FetchSettings(input_max_bytes=max_bytes)
        self.found = Fetched(data=data, name=name)
        self.asked: list[str] = []

    async def fetch(self, url: str) -> Fetched:
        self.asked.append(url)
        return self.found


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "source",
    [
        encoded(PNG),
        f"  {encoded(PNG)}\n",
        "\n".join(encoded(PNG)[i : i + 76] for i in range(0, len(encoded(PNG)), 76)),
        f"data:image/png;base64,{encoded(PNG)}",
        f"data:image/jpeg;base64,{encoded(PNG)}",
        f"data:;base64,{encoded(PNG)}",
        f"data:image/png;name=x.png;base64,{encoded(PNG)}",
        "data:image/png," + "".join(f"%{byte:02x}" for byte in PNG),
    ],
)
async def test_data_urls_and_base64(source: str) -> None:
    assert await input_file(FakeFetcher(), source) == InputFile(data=PNG, media_type="image/png", name="image.png")


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("cat.png", "cat"),
        ("cat%20one.tar.jpeg", "cat_one_tar"),
        ("", "image"),
        ("noextension", "image"),
        (".png", "image"),
        ("../../etc/passwd.png", "etc_passwd"),
        ('a"\r\nb.png', "a_b"),
        ("猫.png", "image"),
        ("x" * 300 + ".png", "x" * 80),
    ],
)
async def test_a_url_is_fetched_and_its_name_made_safe(name: str, stem: str) -> None:
    fetcher = FakeFetcher(JPEG, name)
    found = await input_file(fetcher, " https://images.example/x?sig=1 ")
    assert found == InputFile(data=JPEG, media_type="image/jpeg", name=f"{stem}.jpg")
    assert fetcher.asked == ["https://images.example/x?sig=1"]


@pytest.mark.parametrize(
    ("data", "said"),
    [(SVG, "image/svg"), (HTML, "text/html"), (b"plain", "text/plain"), (b"\0\1\2\3", "of no known type")],
)
@pytest.mark.parametrize("form", ["url", "data", "base64"])
async def test_only_the_kinds_asked_for_are_accepted(data: bytes, said: str, form: str) -> None:
    sources = {"url": "https://x.example/a.png", "data": f"data:image/png;base64,{encoded(data)}"}
    with pytest.raises(InvalidJob, match=said) as caught:
        await input_file(FakeFetcher(data), sources.get(form, encoded(data)))
    assert caught.value.reason == "invalid_format"


async def test_a_connector_may_ask_for_other_kinds() -> None:
    found = await input_file(FakeFetcher(), encoded(b"%PDF-1.7 ..."), kinds={"application/pdf"})
    assert found.name == "application.pdf"
    with pytest.raises(InvalidJob, match="image/png; accepted are application/pdf"):
        await input_file(FakeFetcher(), encoded(PNG), kinds={"application/pdf"})


@pytest.mark.parametrize(
    "source",
    [
        *(None, 7, b"bytes", ["x"], {"url": "x"}),
        *("", "  ", "cat.png", "/etc/passwd", "file:///etc/passwd", "ftp://x.example/a.png"),
        *("{{image}}", "data:image/png;base64,{{image}}", "https://x.example/{{id}}.png"),
        *("data:", "data:,", "data:image/png;base64,", "data:image/png;base64,!!!"),
        *(encoded(PNG)[:-5], "=" * 8, "\ud800"),
    ],
)
async def test_what_is_no_file_is_the_submitters_mistake(source: Any) -> None:
    fetcher = FakeFetcher()
    with pytest.raises(InvalidJob):
        await input_file(fetcher, source)
    assert fetcher.asked == []


@pytest.mark.parametrize("form", ["{}", "data:image/png;base64,{}"])
async def test_the_limit_holds_for_every_form(form: str) -> None:
    source = form.format(encoded(PNG))
    assert (await input_file(FakeFetcher(max_bytes=len(PNG)), source)).data == PNG
    with pytest.raises(InvalidJob, match=f"larger than the {len(PNG) - 1} bytes"):
        await input_file(FakeFetcher(max_bytes=len(PNG) - 1), source)
    with pytest.raises(InvalidJob, match="larger than the 1000 bytes"):
        await input_file(FakeFetcher(max_bytes=1000), form.format("A" * 10**6))


@given(st.text(max_size=60) | st.binary(max_size=60).map(encoded))
async def test_no_text_is_fatal(text: str) -> None:
    if not is_url(text):
        try:
            assert (await input_file(FakeFetcher(), text)).media_type.startswith("image/")
        except InvalidJob:
            pass
        except ServiceError:
            pytest.fail("the service was blamed")

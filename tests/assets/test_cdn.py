"""The wait for a CDN in all its moods, and what a probe's answer means."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio

from emp_trio.assets.cdn import Expected, WaitLog, judge, public_url, wait_for_cdn
from emp_trio.assets.cdn_ways import CdnWay
from emp_trio.assets.config import CdnSettings, storage_settings
from emp_trio.assets.storage import AssetStorage, open_asset_storage
from emp_trio.attempt import StageLimits
from emp_trio.errors import DeadlineExceeded
from emp_trio.testing.attempt import FakeAttempt
from emp_trio.testing.azurite import Azurite
from emp_trio.testing.cdn import Cdn, open_cdn
from emp_trio.testing.png import make_png
from emp_trio.testing.storage import local_storage
from tests.assets.support import a_job, closed_port

PNG = make_png()
DIGEST = hashlib.sha256(PNG).hexdigest()
QUICK = CdnSettings(first_pause=0.01, longest_pause=0.05, probe_timeout=0.5)
KEY = "job-1_0.png"
BUSTED = f"{KEY}?v={DIGEST[:12]}"


@asynccontextmanager
async def cdn_and_saver(folder: Path, cdn_settings: CdnSettings = QUICK) -> AsyncIterator[tuple[Cdn, AssetStorage]]:
    async with open_cdn(folder) as cdn:
        settings = local_storage(folder, cdn_url=cdn.url + "/", cdn=cdn_settings)
        async with open_asset_storage(settings) as saver:
            yield cdn, saver


def in_stage(seconds: float = 10.0) -> FakeAttempt:
    return FakeAttempt(limits=StageLimits(cdn=seconds))


async def test_a_cdn_that_works(tmp_path: Path) -> None:
    async with cdn_and_saver(tmp_path) as (cdn, saver):
        saved = await saver.save(PNG, a_job(prefix="a b"), in_stage())
        assert saved.file_url == saved.cdn_url == f"{cdn.url}/a%20b/{KEY}"
        assert cdn.requests == [("HEAD", f"a b/{KEY}")]  # asked once, and only after the upload
        async with httpx.AsyncClient() as client:
            assert (await client.get(saved.cdn_url)).content == PNG


async def test_a_late_cdn(tmp_path: Path) -> None:
    async with cdn_and_saver(tmp_path) as (cdn, saver):
        cdn.missing = 3
        saved = await saver.save(PNG, a_job(), in_stage())
        assert saved.cdn_url == f"{cdn.url}/{KEY}"
        assert cdn.requests == [("HEAD", KEY)] * 4


@pytest.mark.parametrize("missing", [11, 12])  # found first by the address with a query, and by the plain one
async def test_a_very_late_cdn_still_gets_its_plain_address(tmp_path: Path, missing: int) -> None:
    async with cdn_and_saver(tmp_path) as (cdn, saver):
        cdn.missing = missing
        assert (await saver.save(PNG, a_job(), in_stage())).cdn_url == f"{cdn.url}/{KEY}"


async def test_a_cached_404_is_passed_by_a_query(tmp_path: Path) -> None:
    async with cdn_and_saver(tmp_path) as (cdn, saver):
        cdn.caches_404 = True
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{cdn.url}/{KEY}")).status_code == 404  # somebody was curious
        saved = await saver.save(PNG, a_job(), in_stage())
        assert saved.cdn_url == f"{cdn.url}/{BUSTED}"
        async with httpx.AsyncClient() as client:
            assert (await client.get(saved.cdn_url)).content == PNG


@pytest.mark.parametrize("head", [True, False])
async def test_older_content_in_the_cache_is_passed_by_a_query(tmp_path: Path, head: bool) -> None:
    async with cdn_and_saver(tmp_path) as (cdn, saver):
        cdn.outdated[KEY] = make_png(8, 8, seed=5)
        cdn.refuses_head = not head
        saved = await saver.save(PNG, a_job(), in_stage())
        assert saved.cdn_url == f"{cdn.url}/{BUSTED}"


async def test_a_cached_404_that_no_query_passes(tmp_path: Path) -> None:
    async with cdn_and_saver(tmp_path) as (cdn, saver):
        cdn.caches_404 = cdn.ignores_query = True
        cdn.missing = 1
        with pytest.raises(DeadlineExceeded, match=rf"cdn stage.*/{KEY} answered 404"):
            await saver.save(PNG, a_job(), in_stage(0.6))


async def test_ranged_get_where_head_is_refused(tmp_path: Path) -> None:
    async with cdn_and_saver(tmp_path) as (cdn, saver):
        cdn.refuses_head = True
        cdn.missing = 1
        saved = await saver.save(PNG, a_job(), in_stage())
        assert saved.cdn_url == f"{cdn.url}/{KEY}"
        assert cdn.requests == [("HEAD", KEY), ("GET", KEY), ("GET", KEY)]


async def test_a_slow_cdn(tmp_path: Path) -> None:
    async with cdn_and_saver(tmp_path) as (cdn, saver):
        cdn.delay = 0.2
        assert (await saver.save(PNG, a_job(), in_stage())).cdn_url == f"{cdn.url}/{KEY}"


async def test_a_cdn_that_hangs_then_recovers(tmp_path: Path) -> None:
    async with cdn_and_saver(tmp_path, CdnSettings(probe_timeout=0.1, first_pause=0.01)) as (cdn, saver):
        cdn.hangs = True

        async def recover() -> None:
            await cdn.until_requests(2)
            cdn.hangs = False

        async with trio.open_nursery() as nursery:
            nursery.start_soon(recover)
            assert (await saver.save(PNG, a_job(), in_stage())).cdn_url == f"{cdn.url}/{KEY}"


async def test_an_answer_that_trickles_does_not_eat_the_stage(tmp_path: Path) -> None:
    connections = 0

    async def trickle(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(b"HTTP/1.1 200 OK\r\n")
            while True:
                await stream.send_all(b"x: y\r\n")
                await trio.sleep(0.02)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(functools.partial(trio.serve_tcp, trickle, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        probing = CdnSettings(probe_timeout=0.1, first_pause=0.01)
        settings = local_storage(tmp_path, cdn_url=url, cdn=probing)
        async with open_asset_storage(settings) as saver:
            with pytest.raises(DeadlineExceeded, match=r"did not answer within 0.1 s"):
                await saver.save(PNG, a_job(), in_stage(0.7))
        nursery.cancel_scope.cancel()
    assert connections > 2


@pytest.mark.parametrize(
    ("mood", "words"),
    [
        ("hangs", f"{KEY} did not answer within 0.2 s"),
        ("down", f"{KEY} answered 502"),
        ("missing", f"{KEY} answered 404"),
    ],
)
async def test_a_cdn_that_does_not_recover(tmp_path: Path, mood: str, words: str) -> None:
    async with cdn_and_saver(tmp_path, CdnSettings(probe_timeout=0.2, first_pause=0.02)) as (cdn, saver):
        setattr(cdn, mood, 10**6)
        started = trio.current_time()
        with pytest.raises(DeadlineExceeded, match=rf"cdn stage .* 0.7 s: http.*{words}") as caught:
            await saver.save(PNG, a_job(), in_stage(0.7))
        assert trio.current_time() - started > 0.6
        assert caught.value.stage == "cdn"
        assert caught.value.retry
        assert (tmp_path / KEY).read_bytes() == PNG  # what has been paid for is kept, and the next attempt finds it
        if mood == "hangs":
            assert len(cdn.requests) > 2  # one silent connection does not eat the stage
        cdn.hangs = cdn.down = False
        cdn.missing = 0
        assert (await saver.save(PNG, a_job(), in_stage())).cdn_url == f"{cdn.url}/{KEY}"


@pytest.mark.parametrize(
    "base", ["http://127.0.0.1:{port}", "http://nowhere.invalid", "http://" + "a" * 70 + ".invalid"]
)
async def test_a_cdn_that_is_not_there(tmp_path: Path, base: str) -> None:
    url = base.format(port=closed_port())
    settings = local_storage(tmp_path, cdn_url=url, cdn=QUICK)
    async with open_asset_storage(settings) as saver:
        with pytest.raises(DeadlineExceeded, match="can't be reached"):
            await saver.save(PNG, a_job(), in_stage(0.3))


async def test_a_cancel_ends_the_wait_at_once(tmp_path: Path) -> None:
    async with cdn_and_saver(tmp_path, CdnSettings(probe_timeout=30)) as (cdn, saver):
        cdn.hangs = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(saver.save, PNG, a_job(), in_stage(60))
            await cdn.until_requests(1)
            started = trio.current_time()
            nursery.cancel_scope.cancel()
        assert trio.current_time() - started < 20  # and not the 30 s of a probe


async def test_in_front_of_a_real_store(azurite: Azurite, container: str) -> None:
    async with open_cdn(f"{azurite.endpoint}/{container}") as cdn:
        env = azurite.environment(container) | {"CLOUD_CDN_URL": cdn.url}
        settings = msgspec.structs.replace(storage_settings(env), cdn=QUICK)
        async with open_asset_storage(settings) as saver:
            first = await saver.save(PNG, a_job(prefix="p"), in_stage())
            assert first.cdn_url == f"{cdn.url}/p/{KEY}"
            cdn.outdated[f"p/{KEY}"] = PNG
            other = make_png(seed=1, size=len(PNG) + 100)
            second = await saver.save(other, a_job(prefix="p"), in_stage())
            assert second.cdn_url == f"{cdn.url}/p/{KEY}?v={second.sha256[:12]}"


@pytest.mark.parametrize(
    ("method", "status", "headers", "verdict"),
    [
        ("HEAD", 200, {"content-length": "10"}, "right"),
        ("HEAD", 200, {}, "right"),
        ("HEAD", 200, {"content-length": "11"}, "wrong"),
        ("HEAD", 200, {"content-length": "7", "content-encoding": "gzip"}, "right"),
        ("HEAD", 200, {"content-length": "nonsense"}, "right"),
        ("HEAD", 200, {"content-length": "10", "x-ms-meta-sha256": "abc"}, "right"),
        ("HEAD", 200, {"content-length": "10", "x-ms-meta-sha256": "other"}, "wrong"),
        ("GET", 206, {"content-length": "1", "content-range": "bytes 0-0/10"}, "right"),
        ("GET", 206, {"content-length": "1", "content-range": "bytes 0-0/11"}, "wrong"),
        ("GET", 206, {"content-length": "1", "content-range": "bytes 0-0/*"}, "right"),
        ("GET", 206, {"content-length": "1"}, "right"),
        ("GET", 200, {"content-length": "10"}, "right"),  # a range that was ignored
        ("HEAD", 404, {}, "wrong"),
        ("GET", 410, {}, "wrong"),
        ("HEAD", 405, {}, "refused"),
        ("HEAD", 403, {}, "refused"),
        ("HEAD", 501, {}, "refused"),
        ("GET", 403, {}, "unknown"),
        ("HEAD", 301, {}, "unknown"),
        ("GET", 416, {}, "unknown"),
        ("HEAD", 503, {}, "unknown"),
        ("HEAD", 429, {}, "unknown"),
    ],
)
def test_what_an_answer_means(method: str, status: int, headers: dict[str, str], verdict: str) -> None:
    assert judge(method, status, headers, Expected(size=10, sha256="abc")) == verdict


def test_keys_are_encoded_in_addresses() -> None:
    assert public_url("https://cdn", "a b/ü?#%.png") == "https://cdn/a%20b/%C3%BC%3F%23%25.png"


async def test_pauses_grow(autojump_clock: Any) -> None:
    times: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        times.append(round(trio.current_time(), 3))
        return httpx.Response(503)

    start = trio.current_time()
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        with trio.move_on_after(30):
            way = CdnWay(client, "http://cdn", own=True, private=False)
            await wait_for_cdn(way, "http://cdn/x", Expected(size=1, sha256="a"), CdnSettings(), WaitLog())
    pauses = [round(b - a, 3) for a, b in itertools.pairwise(times)]
    assert times[0] == round(start, 3)
    assert pauses[:7] == [0.2, 0.4, 0.8, 1.6, 3.2, 4.0, 4.0]


async def test_redirects_are_followed(tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/x":
            return httpx.Response(301, headers={"location": "https://cdn/y"})
        return httpx.Response(200, headers={"content-length": "1"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        way = CdnWay(client, "http://cdn", own=True, private=False)
        with trio.fail_after(60):
            found = await wait_for_cdn(way, "http://cdn/x", Expected(size=1, sha256="a"), QUICK, WaitLog())
    assert found == "http://cdn/x"

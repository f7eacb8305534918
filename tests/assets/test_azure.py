"""What is Azure's own, on a real blob service; what it has in common with other stores is in test_contract.py."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import requests
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from emp_trio.assets.config import StorageSettings, storage_settings
from emp_trio.assets.destination import destination
from emp_trio.assets.storage import AssetStorage, open_asset_storage
from emp_trio.assets.stores import AssetStore, Blob, Stored
from emp_trio.assets.stores.blocking import CancelToken, Reader, in_thread
from emp_trio.assets.stores.provider import StoreTimeouts
from emp_trio.assets.stores.providers.azure.account import AzureAccount
from emp_trio.assets.stores.session import CuttableSession
from emp_trio.attempt import StageLimits
from emp_trio.errors import AssetError, DeadlineExceeded
from emp_trio.jobs import JobContext
from emp_trio.retry import RetryPolicy
from emp_trio.testing.attempt import FakeAttempt
from emp_trio.testing.azurite import Azurite, running_azurite
from emp_trio.testing.png import make_png
from emp_trio.testing.serve import open_server
from tests.assets.support import a_job, open_line, pieces

PNG = make_png()
BIG = os.urandom(11 * 2**20)  # three blocks


def settings(azurite: Azurite, container: str, *, read_timeout: float = 30.0, **account: Any) -> StorageSettings:
    """A quick worker's settings, with changes to its account."""
    made = storage_settings(azurite.environment(container))
    changed = msgspec.structs.replace(made.accounts["azure"], **account)
    quick = RetryPolicy(retries=5, base=0.05, cap=0.2)
    return msgspec.structs.replace(
        made, retry=quick, read_timeout=read_timeout, accounts=made.accounts | {"azure": changed}
    )


def blob(azurite: Azurite, container: str, key: str) -> Any:
    return azurite.client().get_blob_client(container, key)


async def write(store: AssetStore, key: str, data: bytes, *, over: Stored | None) -> Stored | None:
    """Write as the saver does; what lies there then."""
    digest = hashlib.sha256(data).hexdigest()
    about = Blob(key=key, media_type="a/b", cache_control="", size=len(data), sha256=digest, owner="job-1")

    def call(cancel: CancelToken) -> Stored | None:
        store.put(about, Reader(io.BytesIO(data), cancel), over, cancel)
        return store.head(key, cancel)

    return await in_thread(call, trio.CapacityLimiter(1))


async def fetch(url: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(url)


async def test_a_large_stream_in_blocks(azurite: Azurite, container: str) -> None:
    async with open_asset_storage(settings(azurite, container)) as saver:
        saved = await saver.save(pieces(BIG), a_job(filename="film.mp4"), FakeAttempt(), media_type="video/x-odd")
    answer = await fetch(saved.file_url)
    assert answer.content == BIG
    assert answer.headers["content-type"] == "video/x-odd"
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert saved.file_path == "film.bin"


async def test_a_retry_finds_its_earlier_upload(azurite: Azurite, container: str) -> None:
    async with open_line(azurite.endpoint) as line:
        through = settings(azurite, container, endpoint=line.endpoint(azurite.endpoint))
        async with open_asset_storage(through) as saver:
            first = await saver.save(BIG, a_job(), FakeAttempt())
            assert line.sent > len(BIG)
            etag, line.sent = blob(azurite, container, first.file_path).get_blob_properties().etag, 0
            again = await saver.save(BIG, msgspec.structs.replace(a_job(), attempt=2), FakeAttempt())
    assert again == first
    assert line.sent < 10_000
    assert blob(azurite, container, first.file_path).get_blob_properties().etag == etag


async def test_what_came_between_the_look_and_the_write_is_not_replaced(azurite: Azurite, container: str) -> None:
    target = destination(JobContext(), settings(azurite, container))
    store = target.provider.open(target.location, StoreTimeouts(connect=5, read=5, abort=2))
    for size in (1000, len(BIG)):
        key = f"k{size}"

        seen = await write(store, key, BIG[:size], over=None)
        await write(store, key, BIG[-size:], over=seen)
        for stale in (None, seen):
            with pytest.raises(AssetError, match="Somebody else is writing it") as caught:
                await write(store, key, os.urandom(size), over=stale)
            assert caught.value.retry
        assert blob(azurite, container, key).download_blob().readall() == BIG[-size:]
    store.close()


async def test_a_blob_that_nobody_has_signed_is_replaced_on_demand_only(azurite: Azurite, container: str) -> None:
    """A TypeScript worker writes no metadata."""
    blob(azurite, container, "latest.png").upload_blob(b"by somebody else")
    async with open_asset_storage(settings(azurite, container)) as saver:
        with pytest.raises(AssetError, match="another job or program"):
            await saver.save(make_png(), a_job("one", filename="latest.jpg"), FakeAttempt())
        for job, seed in (("one", 1), ("two", 2)):
            asked = a_job(job, filename="latest.jpg", overwrite=True)
            saved = await saver.save(make_png(seed=seed), asked, FakeAttempt())
            assert (await fetch(saved.file_url)).content == make_png(seed=seed)


async def test_many_jobs_at_once(azurite: Azurite, container: str) -> None:
    async with open_asset_storage(settings(azurite, container)) as saver, trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(saver.save, make_png(seed=number), a_job(f"job-{number}"), FakeAttempt())
    with azurite.client() as client:
        assert len(list(client.get_container_client(container).list_blob_names())) == 40


async def test_a_full_store(azurite_cache: Path) -> None:
    with running_azurite(azurite_cache, memory_mb=9) as small:
        small.create_container("full")
        async with open_asset_storage(settings(small, "full")) as saver:
            with pytest.raises(AssetError, match="full") as caught:
                await saver.save(BIG, a_job(), FakeAttempt())
            assert (caught.value.type, caught.value.reason) == ("resource_limit", "disk_space_full")
            assert (await saver.save(PNG, a_job(), FakeAttempt())).size == len(PNG)


async def test_an_unknown_account_is_a_name_that_does_not_resolve(azurite: Azurite, container: str) -> None:
    nowhere = "http://ours.blob.invalid"
    async with open_asset_storage(settings(azurite, container, endpoint=nowhere)) as saver:
        with pytest.raises(AssetError, match="AZURE_STORAGE_ACCOUNT") as caught:
            await saver.save(PNG, a_job(), FakeAttempt())
    assert caught.value.reason == "dns_resolution"


async def test_a_broken_upload_goes_on_where_it_was(azurite: Azurite, container: str) -> None:
    async with open_line(azurite.endpoint) as line:
        line.tear_after = 9 * 2**20  # in the third block
        async with open_asset_storage(settings(azurite, container, endpoint=line.endpoint(azurite.endpoint))) as saver:
            with pytest.raises(AssetError, match=r"lost|can't be reached"):
                await saver.save(BIG, a_job(), FakeAttempt())
            line.tear_after, line.sent = None, 0
            saved = await saver.save(BIG, a_job(), FakeAttempt())
        assert 2**20 < line.sent < 6 * 2**20
    assert (
        await fetch(saved.file_url.replace(str(line.port), azurite.endpoint.split(":")[2].split("/")[0]))
    ).content == BIG


async def test_a_store_that_comes_back_within_the_stage(azurite: Azurite, container: str) -> None:
    async with open_line(azurite.endpoint) as line, trio.open_nursery() as nursery:
        line.tear_after = 6 * 2**20

        async def mend() -> None:
            await line.until_sent(6 * 2**20)
            await line.until_quiet()
            line.tear_after = None

        nursery.start_soon(mend)
        async with open_asset_storage(settings(azurite, container, endpoint=line.endpoint(azurite.endpoint))) as saver:
            saved = await saver.save(BIG, a_job(), FakeAttempt())
    assert blob(azurite, container, saved.file_path).download_blob().readall() == BIG


async def test_a_call_that_is_cut_before_it_connects_sends_nothing(azurite: Azurite) -> None:
    async with open_line(azurite.endpoint) as line:
        with CuttableSession() as session:
            session.cut()
            with pytest.raises(requests.ConnectionError):
                await trio.to_thread.run_sync(lambda: session.get(line.endpoint(azurite.endpoint), timeout=5))
        await line.until_quiet()
    assert line.sent == 0


async def test_a_store_that_hangs_costs_the_upload_stage_and_no_more(azurite: Azurite, container: str) -> None:
    async with open_line(azurite.endpoint) as line:
        line.stop_after = 0
        through = settings(azurite, container, endpoint=line.endpoint(azurite.endpoint), read_timeout=30.0)
        async with open_asset_storage(through) as saver:
            started = trio.current_time()
            with pytest.raises(DeadlineExceeded, match=r"upload stage .* 0.5 s: try 1 .*job-1_0.png") as caught:
                await saver.save(PNG, a_job(), FakeAttempt(limits=StageLimits(upload=0.5)))
            assert trio.current_time() - started < 20  # and not the read_timeout
    assert caught.value.stage == "upload"


async def test_a_slow_store_is_waited_for_while_others_go_on(azurite: Azurite, container: str) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await trio.sleep(0.01)
            ticks += 1

    async with open_line(azurite.endpoint) as line, trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        line.delay = 0.1
        through = settings(azurite, container, endpoint=line.endpoint(azurite.endpoint))
        async with open_asset_storage(through) as saver:
            saved = await saver.save(BIG, a_job(), FakeAttempt())
        nursery.cancel_scope.cancel()
    assert saved.size == len(BIG)
    assert ticks > 20  # at least six answers of 0.1 s each: the loop was never held up by them


@pytest.mark.parametrize(
    ("status", "code", "failure"),
    [
        (503, "ServerBusy", ("service_error", "service_unavailable", True)),
        (500, "OperationTimedOut", ("service_error", "service_down", True)),
        (429, "TooManyRequests", ("rate_limit", "requests_per_minute", True)),
        (409, "BlobAlreadyExists", ("service_error", "degraded_performance", True)),
        (412, "ConditionNotMet", ("service_error", "degraded_performance", True)),
        (507, "", ("resource_limit", "disk_space_full", True)),
        (400, "InvalidResourceName", ("validation_error", "invalid_payload", False)),
        (403, "AuthenticationFailed", ("auth_error", "invalid_api_key", False)),
        (403, "AuthorizationFailure", ("auth_error", "insufficient_permissions", False)),
        (403, "AccountIsDisabled", ("auth_error", "account_suspended", False)),
        (302, "", ("response_error", "invalid_response_format", True)),
    ],
)
async def test_answers_and_their_failures(status: int, code: str, failure: tuple[str, str, bool]) -> None:
    """Also: the SDK repeats nothing by itself, the saver does, and as often as its policy says."""
    asked = []

    async def answer(request: Request) -> Response:
        asked.append(request.method)
        return Response(b"", status, {"x-ms-error-code": code})

    async with open_scripted_store(answer) as saver:
        with pytest.raises(AssetError, match=f"HTTP {status}") as caught:
            await saver.save(PNG, a_job(), FakeAttempt())
    assert (caught.value.type, caught.value.reason, caught.value.retry) == failure
    assert asked == ["HEAD"] * (3 if caught.value.retry else 1)


async def test_a_store_that_forgets_is_found_out() -> None:
    asked = []

    async def answer(request: Request) -> Response:
        asked.append(request.method)
        if request.method == "PUT":
            return Response(b"", 201, {"etag": '"1"', "last-modified": "Mon, 01 Jan 2024 00:00:00 GMT"})
        return Response(b"", 404, {"x-ms-error-code": "BlobNotFound"})

    async with open_scripted_store(answer) as saver:
        with pytest.raises(AssetError, match="was uploaded and the store has something else there") as caught:
            await saver.save(PNG, a_job(), FakeAttempt())
    assert caught.value.reason == "corrupted_data"
    assert asked == ["HEAD", "PUT", "HEAD"] * 3


async def test_a_stated_wait_is_kept() -> None:
    times: list[float] = []

    async def answer(request: Request) -> Response:
        times.append(trio.current_time())
        return Response(b"", 503, {"x-ms-error-code": "ServerBusy", "retry-after": "0.3"})

    async with open_scripted_store(answer) as saver:
        with pytest.raises(AssetError, match="ServerBusy") as caught:
            await saver.save(PNG, a_job(), FakeAttempt())
    assert caught.value.retry_after == 0.3
    assert min(b - a for a, b in itertools.pairwise(times)) >= 0.3


@asynccontextmanager
async def open_scripted_store(answer: Callable[[Request], Awaitable[Response]]) -> AsyncIterator[AssetStorage]:
    """A saver in front of a store that answers as told; it tries three times."""
    async with open_server(Starlette(routes=[Route("/{path:path}", answer, methods=["HEAD", "PUT"])])) as url:
        env = {
            "CLOUD_STORAGE_PROVIDER": "azure",
            "CLOUD_STORAGE_CONTAINER": "any",
            "AZURE_STORAGE_ACCOUNT": "ours",
            "AZURE_STORAGE_KEY": "a2V5",
            "AZURE_STORAGE_ENDPOINT": url,
        }
        quick = msgspec.structs.replace(storage_settings(env), retry=RetryPolicy(retries=2, base=0.01))
        async with open_asset_storage(quick) as saver:
            yield saver


async def test_jobs_with_storage_of_their_own(azurite: Azurite, container: str) -> None:
    """A worker without storage serves a job that brings it, and keeps only a few connections to strangers."""
    async with open_line(azurite.endpoint) as line:
        own = AzureAccount(name=azurite.account, endpoint=line.endpoint(azurite.endpoint))
        bare = StorageSettings(accounts={"azure": own})
        async with open_asset_storage(bare) as saver:
            for number in range(18):
                name = f"own{number:04d}"
                azurite.create_container(name)
                job = a_job(provider="azure", bucket=name, account_name=azurite.account, account_key=azurite.key)
                saved = await saver.save(PNG, job, FakeAttempt())
                assert blob(azurite, name, saved.file_path).exists()
            with trio.fail_after(3):  # less than the five seconds after which the service itself would hang up
                await line.until_quiet(16)
        with trio.fail_after(3):
            await line.until_quiet()

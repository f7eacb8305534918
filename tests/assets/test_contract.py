"""What every store does, on the real ones and their emulators: the same tests for each."""

from __future__ import annotations

import hashlib
import io
import os
from typing import IO, cast

import msgspec
import pytest
import trio

from emp_trio.assets.destination import destination
from emp_trio.assets.naming import safe_id
from emp_trio.assets.storage import AssetStorage, open_asset_storage
from emp_trio.assets.stores import AssetStore, Blob, Stored
from emp_trio.assets.stores.blocking import CancelToken, Reader, in_thread
from emp_trio.assets.stores.provider import StoreTimeouts
from emp_trio.errors import AssetError
from emp_trio.jobs import JobContext
from emp_trio.testing.attempt import FakeAttempt
from emp_trio.testing.png import make_png
from tests.assets.backends import Backend, LocalBackend
from tests.assets.conftest import OpenStore
from tests.assets.support import Line, a_job, closed_port, open_line, pieces

PNG = make_png()
BIG = os.urandom(21 * 2**20)  # several parts everywhere


def store_of(backend: Backend) -> AssetStore:
    """The store itself, without the saver."""
    target = destination(JobContext(), backend.settings())
    return target.provider.open(target.location, StoreTimeouts(connect=5, read=5, abort=2))


def about(key: str, data: bytes) -> Blob:
    """A blob of job-1."""
    digest = hashlib.sha256(data).hexdigest()
    return Blob(key=key, media_type="a/b", cache_control="x", size=len(data), sha256=digest, owner="job-1")


async def fails(saver: AssetStorage, data: bytes = PNG) -> AssetError:
    """The typed failure of a save: it says what was paid."""
    with pytest.raises(AssetError) as caught:
        await saver.save(data, a_job(), FakeAttempt(20))
    assert caught.value.paid
    assert "had succeeded and is paid for" in caught.value.message
    return caught.value


class TestContract:
    """One class for all stores."""

    async def test_an_asset_and_what_is_remembered_with_it(self, open_any: OpenStore) -> None:
        async with open_any() as backend, open_asset_storage(backend.settings()) as saver:
            saved = await saver.save(PNG, a_job("jöb/1", prefix="a b/c"), FakeAttempt())
            assert saved.file_path == f"a b/c/{safe_id('jöb/1')}_0.png"
            assert saved.file_url.endswith(f"/a%20b/c/{safe_id('jöb/1')}_0.png")
            facts = await trio.to_thread.run_sync(backend.facts, saved.file_path)
        assert facts is not None
        assert facts.content == PNG
        if not isinstance(backend, LocalBackend):
            assert facts.media_type == "image/png"
            assert facts.cache_control == "public, max-age=31536000"
            assert facts.owner == "j%C3%B6b%2F1"
            assert facts.sha256 == saved.sha256 == hashlib.sha256(PNG).hexdigest()

    async def test_the_cache_control_of_the_settings(self, open_remote: OpenStore) -> None:
        async with open_remote() as backend:
            settings = backend.settings(CLOUD_STORAGE_CACHE_CONTROL="private, max-age=60")
            async with open_asset_storage(settings) as saver:
                saved = await saver.save(pieces(BIG), a_job(), FakeAttempt())
            facts = await trio.to_thread.run_sync(backend.facts, saved.file_path)
        assert facts is not None
        assert facts.cache_control == "private, max-age=60"

    async def test_several_outputs_and_a_large_one_in_parts(self, open_any: OpenStore) -> None:
        contents = [PNG, BIG, make_png(seed=1)]
        async with open_any() as backend, open_asset_storage(backend.settings()) as saver:
            saved = [
                await saver.save(pieces(data), a_job(), FakeAttempt(), index=index)
                for index, data in enumerate(contents)
            ]
            assert [asset.file_name for asset in saved] == ["job-1_0.png", "job-1_1.bin", "job-1_2.png"]
            for asset, data in zip(saved, contents, strict=True):
                facts = await trio.to_thread.run_sync(backend.facts, asset.file_path)
                assert facts is not None
                assert facts.content == data
            assert await trio.to_thread.run_sync(backend.unfinished) == 0

    @pytest.mark.parametrize("data", [PNG, BIG], ids=["small", "large"])
    async def test_the_same_again_is_success_and_no_upload(self, open_any: OpenStore, data: bytes) -> None:
        async with open_any() as backend, open_asset_storage(backend.settings()) as saver:
            first = await saver.save(data, a_job(), FakeAttempt())
            before = await trio.to_thread.run_sync(backend.facts, first.file_path)
            assert await saver.save(data, a_job(), FakeAttempt()) == first
            assert await trio.to_thread.run_sync(backend.facts, first.file_path) == before

    async def test_other_content_of_the_same_job_replaces_the_earlier(self, open_any: OpenStore) -> None:
        async with open_any() as backend, open_asset_storage(backend.settings()) as saver:
            first = await saver.save(PNG, a_job(), FakeAttempt())
            await saver.save(make_png(seed=1), a_job(), FakeAttempt())
            facts = await trio.to_thread.run_sync(backend.facts, first.file_path)
        assert facts is not None
        assert facts.content == make_png(seed=1)

    async def test_an_asset_of_another_job_is_not_replaced(self, open_any: OpenStore) -> None:
        async with open_any() as backend, open_asset_storage(backend.settings()) as saver:
            first = await saver.save(PNG, a_job("a/b"), FakeAttempt())
            with pytest.raises(AssetError, match="another job") as caught:
                await saver.save(make_png(seed=1), a_job(safe_id("a/b")), FakeAttempt())
            facts = await trio.to_thread.run_sync(backend.facts, first.file_path)
        assert not caught.value.retry
        assert facts is not None
        assert facts.content == PNG

    @pytest.mark.parametrize("chosen", [False, True], ids=["a generated name", "a chosen name"])
    async def test_a_chosen_name_takes_nothing_from_another_job(self, open_any: OpenStore, chosen: bool) -> None:
        other = make_png(seed=1)
        async with open_any() as backend, open_asset_storage(backend.settings()) as saver:
            victim = a_job("victim", filename="cat.png") if chosen else a_job("victim")
            first = await saver.save(PNG, victim, FakeAttempt())
            thief = a_job("thief", filename=first.file_name)
            with pytest.raises(AssetError, match="another job"):
                await saver.save(other, thief, FakeAttempt())
            assert await saver.save(PNG, thief, FakeAttempt()) == first  # the very same is no harm
            facts = await trio.to_thread.run_sync(backend.facts, first.file_path)
            assert facts is not None
            assert facts.content == PNG

            asked = a_job("thief", filename=first.file_name, overwrite=True)
            assert (await saver.save(other, asked, FakeAttempt())).file_path == first.file_path
            with pytest.raises(AssetError, match="another job"):  # now it is the other's
                await saver.save(PNG, victim, FakeAttempt())

    async def test_jobs_of_one_workflow_may_replace_each_others(self, open_any: OpenStore) -> None:
        async with open_any() as backend, open_asset_storage(backend.settings()) as saver:
            jobs = [
                msgspec.structs.replace(a_job(name, filename="cat.png"), workflow_id=workflow)
                for name, workflow in (("one", "wörk/flow"), ("two", "wörk/flow"), ("three", "other"), ("four", None))
            ]
            await saver.save(PNG, jobs[0], FakeAttempt())
            saved = await saver.save(make_png(seed=1), jobs[1], FakeAttempt())
            for job in jobs[2:]:
                with pytest.raises(AssetError, match="another job"):
                    await saver.save(make_png(seed=2), job, FakeAttempt())
            facts = await trio.to_thread.run_sync(backend.facts, saved.file_path)
        assert facts is not None
        assert facts.content == make_png(seed=1)

    async def test_of_two_jobs_that_choose_one_name_at_once_one_has_it(self, open_any: OpenStore) -> None:
        won: list[str] = []
        lost: list[str] = []

        async def save(saver: AssetStorage, id: str, seed: int) -> None:
            try:
                await saver.save(make_png(seed=seed), a_job(id, filename="cat.png"), FakeAttempt())
            except AssetError as error:
                lost.append(error.message)
            else:
                won.append(id)

        async with open_any() as backend, open_asset_storage(backend.settings()) as saver:
            async with trio.open_nursery() as nursery:
                for seed in range(4):
                    nursery.start_soon(save, saver, f"job-{seed}", seed)
            facts = await trio.to_thread.run_sync(backend.facts, "cat.png")
        (winner,) = won
        assert len(lost) == 3
        assert all("another job" in text for text in lost)
        assert facts is not None
        assert facts.content == make_png(seed=int(winner[-1]))

    async def test_what_came_between_the_look_and_the_write_is_not_replaced(self, open_any: OpenStore) -> None:
        async with open_any() as backend:
            store = store_of(backend)

            async def write(data: bytes, over: Stored | None) -> Stored | None:
                def call(cancel: CancelToken) -> Stored | None:
                    store.put(about("k", data), Reader(io.BytesIO(data), cancel), over, cancel)
                    return store.head("k", cancel)

                return await in_thread(call, trio.CapacityLimiter(1))

            first = await write(b"one", None)
            second = await write(b"two", first)
            assert second is not None
            assert (second.size, second.owner) == (3, "job-1")
            for stale in (None, first):
                with pytest.raises(AssetError, match="Somebody else is writing it") as caught:
                    await write(b"three", stale)
                assert caught.value.retry
            facts = await trio.to_thread.run_sync(backend.facts, "k")
            store.close()
        assert facts is not None
        assert facts.content == b"two"

    async def test_a_cancel_between_two_parts_leaves_nothing(self, open_any: OpenStore) -> None:
        class Slow:
            """A file during whose third read the cancel comes."""

            def __init__(self) -> None:
                self.reads = 0

            def seek(self, to: int) -> None:
                pass

            def read(self, size: int) -> bytes:
                self.reads += 1
                if self.reads == 3:
                    trio.from_thread.run_sync(scope.cancel)
                return bytes(size)

        async with open_any() as backend:
            store, file = store_of(backend), Slow()

            def put(cancel: CancelToken) -> None:
                store.put(about("x/y.png", bytes(40 * 2**20)), Reader(cast(IO[bytes], file), cancel), None, cancel)

            with trio.CancelScope() as scope:
                await in_thread(put, trio.CapacityLimiter(1))
            store.close()
            assert scope.cancelled_caught
            assert file.reads == 3
            assert await trio.to_thread.run_sync(backend.facts, "x/y.png") is None
            assert await trio.to_thread.run_sync(backend.unfinished) == 0

    @pytest.mark.parametrize("size", [3 * 2**20, 30 * 2**20], ids=["one part", "many parts"])
    async def test_a_cancel_inside_a_part_ends_at_once(self, open_remote: OpenStore, size: int) -> None:
        data = os.urandom(size)
        async with open_remote() as backend:
            assert backend.endpoint is not None
            async with open_line(backend.endpoint) as line:
                line.delay = 0.03
                line.stop_after = size // 2 if size < 2**22 else None
                async with open_asset_storage(backend.settings(line)) as saver:
                    with trio.fail_after(60):
                        await _stop_in_the_middle(saver, line, data)
                    ended = trio.current_time()
                    await line.until_quiet()  # nothing can follow on it
                    assert trio.current_time() - ended < 10  # and not the time-out of the store's client
                    assert line.sent < size // 2 + 10 * 2**20
                    assert await trio.to_thread.run_sync(backend.facts, "job-1_0.bin") is None
                    assert await trio.to_thread.run_sync(backend.unfinished) == 0
                    line.delay, line.stop_after = 0.0, None
                    await saver.save(PNG, a_job("after"), FakeAttempt())  # and the saver goes on working

    @pytest.mark.parametrize("data", [PNG, BIG], ids=["small", "large"])
    async def test_a_wrong_key(self, open_remote: OpenStore, data: bytes) -> None:
        async with open_remote() as backend:
            async with open_asset_storage(backend.settings(**backend.wrong_key)) as saver:
                error = await fails(saver, data)
            assert await trio.to_thread.run_sync(backend.facts, "job-1_0.png") is None
        assert (error.type, error.retry) == ("auth_error", False)
        assert all(variable in error.message for variable in backend.wrong_key)
        assert not any(secret in error.message for secret in backend.wrong_key.values())

    async def test_a_missing_container(self, open_remote: OpenStore) -> None:
        async with (
            open_remote() as backend,
            open_asset_storage(backend.settings(CLOUD_STORAGE_CONTAINER="missing")) as saver,
        ):
            error = await fails(saver)
        assert (error.reason, error.retry) == ("config_error", False)
        assert "missing" in error.message
        assert "Make the" in error.message

    async def test_a_store_that_is_not_there(self, open_remote: OpenStore) -> None:
        async with open_remote() as backend:
            assert backend.endpoint is not None
            line = Line(backend.endpoint)
            line.port = closed_port()
            async with open_asset_storage(backend.settings(line)) as saver:
                error = await fails(saver)
        assert (error.type, error.reason, error.retry) == ("network_error", "connection_failed", True)
        assert "can't be reached" in error.message

    async def test_a_store_that_goes_down_in_the_middle_and_comes_back(self, open_remote: OpenStore) -> None:
        async with open_remote() as backend:
            assert backend.endpoint is not None
            async with open_line(backend.endpoint) as line:
                line.tear_after = 12 * 2**20
                async with open_asset_storage(backend.settings(line)) as saver:
                    error = await fails(saver, BIG)
                    assert (error.type, error.reason, error.retry) == ("network_error", "connection_failed", True)
                    assert await trio.to_thread.run_sync(backend.facts, "job-1_0.bin") is None
                    line.tear_after = None
                    saved = await saver.save(BIG, a_job(), FakeAttempt())
            facts = await trio.to_thread.run_sync(backend.facts, saved.file_path)
        assert facts is not None
        assert facts.content == BIG

    async def test_a_silent_store_is_a_timeout(self, open_remote: OpenStore) -> None:
        async with open_remote() as backend:
            assert backend.endpoint is not None
            async with (
                open_line(backend.endpoint) as line,
                open_asset_storage(backend.settings(line, read_timeout=0.2)) as saver,
            ):
                line.stop_after = 0
                error = await fails(saver)
        assert (error.type, error.reason, error.retry) == ("timeout", "network_timeout", True)
        assert "did not answer within 0.2 s" in error.message


async def _stop_in_the_middle(saver: AssetStorage, line: Line, data: bytes) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(saver.save, data, a_job(), FakeAttempt())
        await line.until_sent(len(data) // 2)
        nursery.cancel_scope.cancel()

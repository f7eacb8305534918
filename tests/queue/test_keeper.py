"""The thread that renews leases, on a real server and through a proxy that fails."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog.testing
import trio

from emp_trio.errors import ConfigError, EmpTrioError, NotSent
from emp_trio.queue import library
from emp_trio.queue.keeper import open_thread_keeper
from emp_trio.queue.keeping import KeepSettings, Others, Process
from emp_trio.queue.lease_table import LeaseTable
from emp_trio.queue.port import RedisSettings
from emp_trio.queue.worker_queue import LeaseRef
from emp_trio.secrets import Secret
from emp_trio.testing.proxy import FaultProxy, open_proxy
from emp_trio.testing.valkey import valkey_server
from tests.queue.support import TLS, Library

LIMIT = 60.0
KEEP = KeepSettings(lease=3.0, renew_every=0.2, alive_every=0.2, standstill=30.0)


class Heard:
    """Who is told."""

    def __init__(self) -> None:
        self.lost: dict[LeaseRef, str] = {}
        self.found: list[Others] = []
        self.errors: list[EmpTrioError] = []
        self.threads: set[int] = set()

    def gone(self, leases: Mapping[LeaseRef, str]) -> None:
        self.threads.add(threading.get_ident())
        self.lost.update(leases)

    def others(self, found: Others) -> None:
        self.found.append(found)

    def fail(self, error: EmpTrioError) -> None:
        self.errors.append(error)


async def until(condition: Callable[[], Any]) -> None:
    with trio.fail_after(LIMIT):
        while not condition():
            await trio.sleep(0.005)


@asynccontextmanager
async def keeping(
    url: str, *, keep: KeepSettings = KEEP, nonce: str = "me", limit: float = 0.5, **settings: Any
) -> AsyncIterator[tuple[LeaseTable, Heard]]:
    table, heard = LeaseTable(trio.current_time()), Heard()
    at = RedisSettings(url=Secret(url), **settings)
    me = Process(nonce=nonce, machine_id="m1", where="here")

    async with open_thread_keeper(at, table, me, keep, heard, limit=limit, where=lambda frame: {}):
        yield table, heard
    assert heard.errors == []


def claimed(lib: Library, job_id: str = "j", worker: str = "w1", lease: float = 3.0) -> LeaseRef:
    lib.submit(job_id)
    return LeaseRef(job_id, lib.claim(worker, lease=lease)["jobs"][job_id][1])


def left(lib: Library, job_id: str = "j") -> float:
    """Seconds until its lease ends."""
    return float(lib.db.zscore("emp:leases", job_id)) / 1000 - time.time()


def keepers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "emp-trio-leases"]


async def test_it_renews_what_stands_in_the_table_and_only_that(valkey: str, lib: Library) -> None:
    kept, other = claimed(lib, "j", "w1"), claimed(lib, "k", "w2")
    async with keeping(valkey) as (table, _):
        began = trio.current_time()
        table.hold(kept, began + 3)
        table.hold(other, began + 3)
        await until(lambda: table.until(other) > began + 3.1)
        table.drop(other)
        ends = lib.db.zscore("emp:leases", "k")
        await until(lambda: left(lib) > 2.5 and trio.current_time() > began + 1.5)
        assert lib.db.zscore("emp:leases", "k") <= ends + 300
        assert table.until(kept) <= trio.current_time() + 3
    assert keepers() == []


async def test_what_it_believes_of_a_lease_ends_before_what_the_server_believes(valkey: str, lib: Library) -> None:
    kept, began = claimed(lib), trio.current_time()
    async with keeping(valkey) as (table, _):
        table.hold(kept, began + 3)
        await until(lambda: table.until(kept) > began + 3)
        for _ in range(50):
            await trio.sleep(0.02)
            looked = trio.current_time()
            before = table.until(kept) - looked
            after = left(lib)  # a renewal in between is in it
            assert before <= after + trio.current_time() - looked + 0.02


async def test_a_lost_lease_is_told_in_the_loops_thread(valkey: str, lib: Library) -> None:
    lost, cancelled, kept = claimed(lib, "a", "w1"), claimed(lib, "b", "w2"), claimed(lib, "c", "w3")
    async with keeping(valkey) as (table, heard):
        for lease in (lost, cancelled, kept):
            table.hold(lease, trio.current_time() + 3)
        lib.db.hset("job:a", "lease_token", "x/9")
        lib.db.hset("job:b", "status", "failed")
        await until(lambda: len(heard.lost) == 2)
        assert heard.lost == {lost: "lost", cancelled: "cancelled"}
        assert heard.threads == {threading.get_ident()}


async def test_a_settled_job_is_not_told_as_lost(valkey: str, lib: Library) -> None:
    """Its settlement may overtake a renewal, or its reply may not have been read yet."""
    lease = claimed(lib)
    async with keeping(valkey) as (table, heard):
        table.hold(lease, trio.current_time() + 3)
        lib.settle("j", lease.token, "completed")
        began = trio.current_time()
        await until(lambda: table.until(lease) > began + 3.3)
        assert heard.lost == {}
        assert lib.db.zscore("emp:leases", "j") is None
        assert lib.job("j")["status"] == "completed"


async def test_a_claim_whose_lease_is_nearly_over_is_renewed_at_once(valkey: str, lib: Library) -> None:
    rare = KeepSettings(lease=3.0, renew_every=50.0, alive_every=50.0, standstill=300.0)
    async with keeping(valkey, keep=rare) as (table, _):
        lease = claimed(lib)
        table.hold(lease, trio.current_time() + 0.5)
        await until(lambda: table.until(lease) > trio.current_time() + 2)


async def test_a_claim_whose_reply_is_not_read_is_kept(valkey: str, lib: Library) -> None:
    lib.submit("j")
    lib.claim("w1", "w2", nonces=("n-0", "n-1"), lease=3.0)
    async with keeping(valkey) as (table, _):
        table.claiming("n", [("w1", "n-0"), ("w2", "n-1")])
        time.sleep(4.5)
        assert left(lib) > 1
        assert table.claimed("n") > trio.current_time() + 1
        await trio.sleep(0.5)
        ends = lib.db.zscore("emp:leases", "j")
        await trio.sleep(0.5)
        assert lib.db.zscore("emp:leases", "j") == ends


async def test_it_goes_on_while_the_loop_is_blocked(valkey: str, lib: Library) -> None:
    lease = claimed(lib)
    async with keeping(valkey) as (table, _):
        table.hold(lease, trio.current_time() + 3)
        table.introduce(["w1"])
        time.sleep(4.5)
        assert left(lib) > 1
        assert table.until(lease) > trio.current_time() + 1
        assert lib.db.ttl("worker:w1:heartbeat") > 55


async def test_it_stops_after_a_standstill_and_goes_on_when_the_loop_moves(valkey: str, lib: Library) -> None:
    lease = claimed(lib)
    short = KeepSettings(lease=3.0, renew_every=0.2, alive_every=0.2, standstill=0.6)
    with structlog.testing.capture_logs() as logs:
        async with keeping(valkey, keep=short) as (table, heard):
            table.hold(lease, trio.current_time() + 3)
            time.sleep(3)
            stood = table.until(lease)
            assert stood < trio.current_time() + 2.5
            await until(lambda: table.until(lease) > stood)
            assert heard.lost == {}
    said = [line["event"] for line in logs if line["event"].startswith("loop.")]
    assert said == ["loop.stopped", "loop.moves_again"]


@pytest.fixture
async def proxy(valkey: str) -> AsyncIterator[FaultProxy]:
    async with open_proxy(int(valkey.rpartition(":")[2])) as made:
        yield made


@pytest.mark.parametrize("fault", ["reset", "refuse", "blackhole", "cut"])
async def test_a_connection_that_fails_is_replaced(proxy: FaultProxy, lib: Library, fault: str) -> None:
    lease = claimed(lib)
    with structlog.testing.capture_logs() as logs:
        async with keeping(f"redis://127.0.0.1:{proxy.port}") as (table, heard):
            table.hold(lease, trio.current_time() + 3)
            await until(lambda: lib.db.exists("emp:process:me"))
            if fault == "cut":
                proxy.cut_before_reply = 1
            elif fault == "refuse":
                proxy.refuse = True
                proxy.reset_all()
            elif fault == "blackhole":
                proxy.blackhole = True
            else:
                proxy.reset_all()
            await trio.sleep(0.8)
            proxy.refuse = proxy.blackhole = False
            if fault == "blackhole":
                proxy.reset_all()
            now = trio.current_time()
            await until(lambda: table.until(lease) > now + 3)
            assert heard.lost == {}
    assert 1 <= sum(line["event"] == "leases.not_renewed" for line in logs) <= 2


async def test_functions_that_were_flushed_are_loaded_again(valkey: str, lib: Library) -> None:
    lease = claimed(lib)
    async with keeping(valkey) as (table, heard):
        table.hold(lease, trio.current_time() + 3)
        lib.db.function_flush()
        now = trio.current_time()
        await until(lambda: table.until(lease) > now + 3.1)
        assert heard.lost == {}


async def test_a_server_that_does_not_answer_does_not_keep_the_process(proxy: FaultProxy, lib: Library) -> None:
    with trio.fail_after(LIMIT):
        async with keeping(f"redis://127.0.0.1:{proxy.port}", limit=1.0):
            proxy.blackhole = True
            began = trio.current_time()
        assert trio.current_time() - began < 20  # two limits of a second, on a machine that has time
    proxy.blackhole = False
    proxy.reset_all()


async def test_a_server_that_is_not_there_is_said_after_the_patience() -> None:
    with pytest.raises(NotSent, match="for the renewal of leases"):
        async with keeping("redis://127.0.0.1:1", patience=0.3):
            raise AssertionError("it is connected")
    assert keepers() == []


async def test_a_url_that_cannot_be_used_is_a_config_error() -> None:
    with pytest.raises(ConfigError):
        async with keeping("http://:geheim@127.0.0.1:1"):
            raise AssertionError("it is connected")


async def test_a_user_with_a_password_a_database_and_a_unix_socket(tmp_path: Path) -> None:
    socket = tmp_path / "s"
    with (
        valkey_server("--unixsocket", str(socket), password="letmein") as url,
        redis.Redis.from_url(url, db=2, decode_responses=True) as db,
    ):
        db.function_load(library.source()[0], replace=True)
        keys, channels = ("~jobs:*", "~job:*", "~worker:*", "~workers:active", "~emp:*"), ("resetchannels",)
        db.execute_command("ACL", "SETUSER", "worker", "on", ">pa%ss/1", "+@all", "-@dangerous", *keys, *channels)
        port = url.rpartition(":")[2]
        for number, at in enumerate(
            (
                f"redis://worker:pa%25ss%2F1@127.0.0.1:{port}/2",
                f"unix://worker:pa%25ss%2F1@{socket}?db=2",
                f"redis://127.0.0.1:{port}/2?username=worker&password=pa%25ss%2F1",
            )
        ):
            async with keeping(at, nonce=f"n{number}"):
                assert db.hget(f"emp:process:n{number}", "where") == "here"
                clients = [c for c in db.client_list() if c["name"] == "emp-trio-leases"]
                assert [(c["user"], c["resp"], c["db"]) for c in clients] == [("worker", "3", "2")]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_tls(tls_port: int, lib: Library, host: str) -> None:
    lib.db.select(1)
    async with keeping(f"rediss://{host}:{tls_port}/1?ssl_ca_certs={TLS / 'ca.pem'}", limit=20.0):
        assert lib.db.hget("emp:process:me", "where") == "here"


async def test_tls_of_an_unknown_authority_is_refused(tls_port: int) -> None:
    with pytest.raises(NotSent, match=r"(?i)certificate"):
        async with keeping(f"rediss://localhost:{tls_port}", patience=1.0, limit=20.0):
            raise AssertionError("it is connected")


async def test_a_crash_of_the_thread_is_told(valkey: str, lib: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise ZeroDivisionError("a defect")

    table, heard = LeaseTable(trio.current_time()), Heard()
    me = Process(nonce="me", machine_id="m1", where="here")
    settings = RedisSettings(url=Secret(valkey))
    with structlog.testing.capture_logs() as logs:
        async with open_thread_keeper(settings, table, me, KEEP, heard, limit=1.0, where=lambda frame: {}):
            monkeypatch.setattr("emp_trio.queue.keeper.look", broken)
            await until(lambda: heard.errors)
    assert "the thread that renews the leases crashed" in heard.errors[0].message
    assert [line["event"] for line in logs] == ["leases.keeper_crashed"]

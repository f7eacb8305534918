"""A server that can't serve for now keeps its connections: they are left, and the address is looked up anew."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis
import trio

from emp_trio.errors import ConfigError, EmpTrioError, NotSent, OutcomeUnknown, ServerRefused
from emp_trio.queue.bridge import open_bridge
from emp_trio.queue.client import Queue, open_queue
from emp_trio.queue.embedded import free_port
from emp_trio.queue.keeper import open_thread_keeper
from emp_trio.queue.keeping import KeepSettings, Process
from emp_trio.queue.lease_table import LeaseTable
from emp_trio.queue.port import GAP, RedisSettings
from emp_trio.queue.refusals import PASSING, end_of_connection, refused
from emp_trio.secrets import Secret
from emp_trio.testing.proxy import FaultProxy, open_proxy
from emp_trio.testing.valkey import valkey_server
from tests.queue.support import HELLO, Library, fake_server
from tests.queue.test_keeper import Heard, claimed

LIMIT = 60.0
ELSEWHERE = ("READONLY", "MASTERDOWN", "LOADING", "UNBLOCKED", "NOREPLICAS")
STAYING = ("ERR", "WRONGTYPE", "OOM", "BUSY", "MISCONF", "TRYAGAIN", "NOSCRIPT", "NOPERM", "NOGROUP", "EXECABORT")


@pytest.mark.parametrize("code", ELSEWHERE)
def test_errors_of_a_server_that_another_may_replace(code: str) -> None:
    error = end_of_connection(f"{code} says the server")
    assert isinstance(error, ServerRefused)
    assert error.code == code
    assert code in PASSING


@pytest.mark.parametrize("code", ["MOVED", "ASK", "CROSSSLOT", "CLUSTERDOWN"])
def test_errors_of_a_cluster(code: str) -> None:
    error = end_of_connection(f"{code} 3999 127.0.0.1:6381")
    assert isinstance(error, ConfigError)
    assert "cluster mode" in error.message


@pytest.mark.parametrize("code", STAYING)
def test_other_errors_say_nothing_of_the_connection(code: str) -> None:
    assert end_of_connection(f"{code} says the server") is None
    assert refused(f"{code} says the server").code == code


@pytest.fixture
async def proxy(valkey: str) -> AsyncIterator[FaultProxy]:
    async with open_proxy(int(valkey.rsplit(":", 1)[1])) as made:
        yield made


def settings_of(proxy: FaultProxy, **changes: Any) -> RedisSettings:
    values = {"longest_pause": 0.1, **changes}
    return RedisSettings(url=Secret(f"redis://127.0.0.1:{proxy.port}"), **values)


async def again(call: Callable[[], Any]) -> Any:
    with trio.fail_after(LIMIT):
        while True:
            try:
                return await call()
            except (NotSent, ServerRefused):
                await trio.sleep(0.01)


@pytest.mark.parametrize("code", ELSEWHERE)
async def test_both_connections_are_left_and_each_caller_gets_its_answer(proxy: FaultProxy, code: str) -> None:
    answers: list[Any] = []
    async with open_bridge(settings_of(proxy)) as bridge, bridge.subscribe("c") as messages:
        assert await messages.receive() is GAP
        for text in ("before", "after"):  # in one batch with the one in between
            bridge.post("ECHO", text, on_reply=answers.append)
            if text == "before":
                bridge.post("EVAL", f"return redis.error_reply('{code} it is')", "0", on_reply=answers.append)
        with trio.fail_after(LIMIT):
            while len(answers) < 3:
                await trio.sleep(0.001)
        assert (answers[0], answers[2]) == (b"before", b"after")
        assert isinstance(answers[1], ServerRefused)
        assert answers[1].code == code
        with trio.fail_after(LIMIT):
            assert await messages.receive() is GAP
        assert await again(lambda: bridge.call("PING")) == b"PONG"
        assert proxy.accepted == 4


async def test_while_the_server_refuses_that_is_what_callers_hear(valkey: str) -> None:
    async with open_bridge(RedisSettings(url=Secret(valkey), longest_pause=60.0)) as bridge:
        for _ in range(3):  # the pause before the next connection grows
            with pytest.raises(ServerRefused) as caught:
                await bridge.call("EVAL", "return redis.error_reply('READONLY a replica')", "0")
            assert caught.value.code == "READONLY"
            assert "a replica" in caught.value.message


async def test_a_demoted_master_behind_a_name_is_left_for_the_new_one(proxy: FaultProxy, valkey: str) -> None:
    """The name may be one of the DNS, an address that moves, or a proxy that knows the master."""
    keep = KeepSettings(lease=6.0, renew_every=0.2, alive_every=0.2, standstill=60.0)
    table, heard = LeaseTable(trio.current_time()), Heard()
    me = Process(nonce="me", machine_id="m1", where="here")
    settings = settings_of(proxy)
    old = Library(valkey)
    lease = claimed(old, lease=60.0)
    old.call("submit", "k", "nonce", "{}", "service_required", "t")
    with valkey_server("--replicaof", f"127.0.0.1 {valkey.rpartition(':')[2]}") as other:
        new: Any = redis.Redis.from_url(other, decode_responses=True)
        with trio.fail_after(LIMIT):
            while not new.exists("job:k") or not new.function_list():
                await trio.sleep(0.01)
        async with (
            open_queue(f"redis://127.0.0.1:{proxy.port}") as queue,
            open_thread_keeper(settings, table, me, keep, heard, limit=2.0, where=lambda frame: {}),
            queue.port.subscribe("c") as messages,
        ):
            table.hold(lease, trio.current_time() + keep.lease)
            assert await messages.receive() is GAP
            new.replicaof("NO", "ONE")
            old.db.replicaof("127.0.0.1", other.rpartition(":")[2])
            try:
                proxy.turn_to(int(other.rpartition(":")[2]))
                began = trio.current_time()
                await Queue(queue.port, patience=LIMIT).submit("comfyui", job_id="n")
                assert new.hget("job:n", "status") == "pending"
                with trio.fail_after(LIMIT):
                    while table.until(lease) < began + keep.lease:
                        await trio.sleep(0.01)
                    while await messages.receive() is not GAP:
                        pass
                assert trio.current_time() - began < 10
                assert new.pubsub_numsub("c") == [("c", 1)]
                assert {c["name"] for c in new.client_list()} >= {"emp-trio", "emp-trio-leases"}
                assert heard.lost == {}
            finally:
                old.db.replicaof("NO", "ONE")
        new.close()
    old.db.close()


# -- cluster mode


@pytest.fixture(scope="module")
def cluster() -> Any:
    with valkey_server("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as url:
        yield url


async def error_of(url: str) -> EmpTrioError:
    with pytest.raises(EmpTrioError) as caught:
        async with open_bridge(RedisSettings(url=Secret(url), patience=30.0)):
            pass
    return caught.value


async def test_cluster_mode_is_refused_at_once(cluster: str) -> None:
    began = trio.current_time()
    error = await error_of(cluster)
    assert isinstance(error, ConfigError)
    assert "cluster mode, which emp-trio does not support" in error.message
    assert trio.current_time() - began < 5


async def test_a_server_that_becomes_a_cluster_is_said_to_be_one() -> None:
    """A name that leads to another server one day, or a proxy that does not say what is behind it."""
    refusing = itertools.count()

    async def answer(command: list[bytes]) -> bytes:
        match command[0]:
            case b"HELLO":
                return HELLO
            case b"FCALL":
                next(refusing)
                return b"-MOVED 3999 127.0.0.1:6381\r\n"
            case _:
                return b"+OK\r\n"

    async with fake_server(answer) as url, open_bridge(RedisSettings(url=Secret(url), longest_pause=60.0)) as bridge:
        with pytest.raises(ServerRefused, match="MOVED"):
            await bridge.call("FCALL", "f", 0)
        said: list[str] = []
        for _ in range(20):
            with pytest.raises((NotSent, OutcomeUnknown, ServerRefused)) as refused:
                await bridge.call("FCALL", "f", 0)
            said.append(str(refused.value))
            await trio.sleep(0.01)
    # Between two connections nothing is known but that there is none.
    assert {text for text in said if "cluster mode" not in text and "MOVED" not in text} <= {"no connection to Redis"}
    assert any("cluster mode" in text or "MOVED" in text for text in said)
    assert next(refusing) < 10

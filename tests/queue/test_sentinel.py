"""A server that Sentinels name: found, followed through a fail-over and back, with passwords, a database and TLS."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import redis
import structlog.testing
import trio

from emp_trio.errors import ConfigError, EmpTrioError, NotSent
from emp_trio.queue.bridge import open_bridge
from emp_trio.queue.client import Queue, open_queue
from emp_trio.queue.keeper import open_thread_keeper
from emp_trio.queue.keeping import KeepSettings, Process
from emp_trio.queue.lease_table import LeaseTable
from emp_trio.queue.port import GAP, RedisSettings
from emp_trio.secrets import Secret
from tests.queue.sentinels import LIMIT, SERVICE, Fleet, eventually, sentinel_fleet, sentinel_program
from tests.queue.support import HELLO, TLS, Library, fake_server
from tests.queue.test_keeper import Heard, claimed, until
from tests.worker.support import HEAVY

RESUME = 10.0  # seconds after which claims go on once there is a new master
KEEP = KeepSettings(lease=6.0, renew_every=0.3, alive_every=0.3, standstill=60.0)


@pytest.fixture(params=["valkey", "redis"] if HEAVY else ["valkey"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    with sentinel_fleet(tmp_path, sentinel_program(request.param)) as made:
        yield made


async def test_bridge_and_renewals_follow_a_fail_over_and_back(fleet: Fleet) -> None:
    url = f"redis+sentinel://{fleet.hosts}/{SERVICE}"
    settings = RedisSettings(url=Secret(url))
    table, heard = LeaseTable(trio.current_time()), Heard()
    me = Process(nonce="me", machine_id="m1", where="here")
    library = Library(f"redis://127.0.0.1:{fleet.master()}")
    lease = claimed(library, lease=60.0)
    async with (
        open_queue(url) as queue,
        open_thread_keeper(settings, table, me, KEEP, heard, limit=1.0, where=lambda frame: {}),
        queue.port.subscribe("c") as messages,
    ):
        table.hold(lease, trio.current_time() + KEEP.lease)
        assert await messages.receive() is GAP
        for _ in range(2 if HEAVY else 1):
            await trio.to_thread.run_sync(eventually, fleet.is_ready)
            master = await trio.to_thread.run_sync(fleet.fail_over)
            began = trio.current_time()
            with trio.fail_after(LIMIT):
                while await messages.receive() is not GAP:
                    pass
                job_id = await queue.submit("comfyui")
            table.connected_anew()  # as a machine does with each connection
            with fleet.db(master) as db:
                await until(lambda: db.zscore("emp:leases", "j") < 1000 * (time.time() + KEEP.lease))
            assert trio.current_time() - began < RESUME
            with fleet.db(master) as db:
                assert db.hget(f"job:{job_id}", "status") == "pending"
                db.publish("c", "now")
            with trio.fail_after(LIMIT):
                assert await messages.receive() == ("c", b"now")
        assert heard.lost == {}
    library.db.close()


async def test_a_master_that_dies_is_replaced(tmp_path: Path) -> None:
    with sentinel_fleet(tmp_path, sentinel_program("valkey")) as fleet:
        async with open_queue(f"redis+sentinel://{fleet.hosts}/{SERVICE}") as queue:
            before = fleet.master()
            with fleet.db(before) as db, suppress(redis.ConnectionError):
                db.shutdown(nosave=True)
            with trio.fail_after(LIMIT):
                while fleet.master() == before:
                    await trio.sleep(0.02)
            began = trio.current_time()
            patient = Queue(queue.port, patience=LIMIT)
            await patient.submit("comfyui", job_id="j")
            assert trio.current_time() - began < RESUME
            assert fleet.db(fleet.master()).hget("job:j", "status") == "pending"


async def test_passwords_of_both_and_a_database(tmp_path: Path) -> None:
    with sentinel_fleet(
        tmp_path, sentinel_program("valkey"), password="ser/ver-pw", sentinel_password="watch-pw"
    ) as fleet:
        at = f"redis+sentinel://:ser%2Fver-pw@{fleet.hosts}/{SERVICE}/2"
        async with open_queue(f"{at}?sentinel_password=watch-pw") as queue:
            await queue.submit("comfyui", job_id="j")
            with redis.Redis(port=fleet.master(), password="ser/ver-pw", db=2) as db:
                assert db.exists("job:j")
        for wrong in ("?sentinel_password=not-it", ""):
            with pytest.raises(ConfigError, match="refuses") as caught:
                async with open_queue(at + wrong):
                    pass
            assert "not-it" not in caught.value.message
            assert "watch-pw" not in caught.value.message
        with pytest.raises(ConfigError, match="login"):
            async with open_queue(f"redis+sentinel://{fleet.hosts}/{SERVICE}?sentinel_password=watch-pw"):
                pass


async def error_of(url: str, *, patience: float = 0.5) -> EmpTrioError:
    with pytest.raises(EmpTrioError) as caught:
        async with open_bridge(RedisSettings(url=Secret(url), patience=patience, longest_pause=0.1)):
            pass
    return caught.value


def sentinel(*master: str) -> Callable[[list[bytes]], Awaitable[bytes]]:
    """A Sentinel that names this host and port, or knows no service."""

    def array(words: Sequence[bytes]) -> bytes:
        return b"*%d\r\n" % len(words) + b"".join(map(text, words))

    def text(word: bytes) -> bytes:
        return b"$%d\r\n%s\r\n" % (len(word), word)

    async def answer(command: list[bytes]) -> bytes:
        match command:
            case [b"SENTINEL", *_]:
                return array([word.encode() for word in master]) if master else b"*-1\r\n"
            case [b"HELLO", *_]:
                return HELLO
            case [b"SUBSCRIBE", *names]:
                return b">3\r\n" + b"".join(map(text, [b"subscribe", *names])) + b":1\r\n"
            case [b"PING", number]:
                return text(number)
            case _:
                return b"+OK\r\n"

    return answer


async def test_what_sentinels_can_say_wrongly(valkey: str) -> None:
    port = valkey.rpartition(":")[2]
    async with fake_server(sentinel()) as empty, fake_server(sentinel("127.0.0.1", port)) as good:
        dead = "127.0.0.1:1"
        empty, good = empty.rpartition("/")[2], good.rpartition("/")[2]
        error = await error_of(f"redis+sentinel://{empty}/jobs")
        assert isinstance(error, ConfigError)
        assert "knows no service 'jobs'" in error.message
        error = await error_of(f"redis+sentinel://{dead},{empty}/jobs")
        assert isinstance(error, NotSent)
        assert dead in error.message
        assert "knows no service" in error.message
        error = await error_of(f"redis+sentinel://127.0.0.1:{port}/jobs")
        assert isinstance(error, ConfigError)
        assert "no Sentinel" in error.message
        async with open_bridge(RedisSettings(url=Secret(f"redis+sentinel://{dead},{empty},{good}/jobs"))) as bridge:
            assert await bridge.call("PING") == b"PONG"


async def test_a_replica_that_sentinels_still_call_the_master_is_not_used(valkey: str) -> None:
    with redis.Redis.from_url(valkey) as db:
        db.replicaof("127.0.0.1", "1")
        try:
            async with fake_server(sentinel("127.0.0.1", valkey.rpartition(":")[2])) as at:
                url = f"redis+sentinel://{at.rpartition('/')[2]}/jobs"
                error = await error_of(url)
                assert isinstance(error, NotSent)
                assert "is no master" in error.message
                db.replicaof("NO", "ONE")
                with structlog.testing.capture_logs() as logs:
                    async with open_bridge(RedisSettings(url=Secret(url))) as bridge:
                        assert await bridge.call("PING") == b"PONG"
                assert [line["event"] for line in logs] == ["redis.master"]
        finally:
            db.replicaof("NO", "ONE")


@asynccontextmanager
async def tls_in_front_of(port: int) -> AsyncIterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "server.pem")

    async def pump(source: trio.abc.ReceiveStream, target: trio.abc.SendStream) -> None:
        async for data in source:
            await target.send_all(data)

    async def serve(raw: trio.SocketStream) -> None:
        client = trio.SSLStream(raw, context, server_side=True, https_compatible=True)
        try:
            async with client, await trio.open_tcp_stream("127.0.0.1", port) as server, trio.open_nursery() as both:
                both.start_soon(pump, client, server)
                await pump(server, client)
                both.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client went, or did not trust us

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield int(listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


async def test_tls_with_sentinel_and_server(tls_port: int) -> None:
    async with (
        fake_server(sentinel("localhost", str(tls_port))) as plain,
        tls_in_front_of(int(plain.rpartition(":")[2])) as port,
    ):
        url = f"rediss+sentinel://localhost:{port}/jobs"
        async with open_bridge(RedisSettings(url=Secret(f"{url}?ssl_ca_certs={TLS / 'ca.pem'}"))) as bridge:
            assert await bridge.call("PING") == b"PONG"
        error = await error_of(url, patience=5.0)
        assert "certificate" in error.message.lower()


async def test_a_url_that_names_a_sentinel_as_the_server_is_explained() -> None:
    async def answer(command: list[bytes]) -> bytes:
        if command == [b"HELLO"]:
            return b"%1\r\n$4\r\nmode\r\n$8\r\nsentinel\r\n"
        return HELLO if command[0] == b"HELLO" else b"+OK\r\n"

    async with fake_server(answer) as url:
        error = await error_of(url)
    assert isinstance(error, ConfigError)
    assert "redis+sentinel://" in error.message

"""Ways to reach a server, and what is said when it can't be reached or used: without ever showing the password."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
import trio

from emp_trio.errors import ConfigError, EmpTrioError, NotSent
from emp_trio.queue import library
from emp_trio.queue.bridge import Bridge, open_bridge
from emp_trio.queue.client import open_queue
from emp_trio.queue.port import GAP, RedisSettings
from emp_trio.secrets import Secret
from emp_trio.testing.valkey import valkey_server
from tests.queue.support import TLS

PASSWORD = "pa%ss/wo:rd@#1"
QUOTED = "pa%25ss%2Fwo%3Ard%40%231"


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """Port of a server with the default user's password and a user ``worker``."""
    with valkey_server(password="letmein") as url, redis.Redis.from_url(url) as db:
        db.execute_command("ACL", "SETUSER", "worker", "on", f">{PASSWORD}", "+@all", "~*", "&*")
        db.execute_command("ACL", "SETUSER", "reader", "on", ">reader-pw", "+@all", "-function", "~*", "&*")
        db.execute_command("ACL", "SETUSER", "nocall", "on", ">nocall-pw", "+@all", "-fcall", "~*", "&*")
        db.execute_command("ACL", "SETUSER", "deaf", "on", ">deaf-pw", "+@all", "~*", "resetchannels")
        yield url.rpartition(":")[2]


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Bridge]:
    values = {"patience": 2.0, "longest_pause": 0.1, **options}
    async with open_bridge(RedisSettings(url=Secret(url), **values)) as bridge:
        yield bridge


async def error_of(url: str, **options: Any) -> EmpTrioError:
    with pytest.raises(EmpTrioError) as caught:
        async with connected(url, **options):
            pass
    assert type(caught.value).__module__ == "emp_trio.errors"
    assert caught.value.__cause__ is None or PASSWORD not in str(caught.value.__cause__)
    return caught.value


async def works(bridge: Bridge) -> None:
    """Commands and subscriptions both."""
    assert await bridge.call("PING") == b"PONG"
    async with bridge.subscribe("c") as messages:
        with trio.fail_after(60):
            assert await messages.receive() is GAP


async def test_password_of_the_default_user(guarded: str) -> None:
    async with connected(f"redis://:letmein@127.0.0.1:{guarded}") as bridge:
        await works(bridge)
        assert await bridge.call("ACL", "WHOAMI") == b"default"


async def test_user_with_a_password_of_special_characters(guarded: str) -> None:
    async with connected(f"redis://worker:{QUOTED}@127.0.0.1:{guarded}") as bridge:
        await works(bridge)
        assert await bridge.call("ACL", "WHOAMI") == b"worker"


@pytest.mark.parametrize("login", ["", "worker:wrong-secret@", ":wrong-secret@", "nobody:wrong-secret@"])
async def test_refused_login_is_a_config_error_at_once_and_without_the_password(guarded: str, login: str) -> None:
    began = trio.current_time()
    error = await error_of(f"redis://{login}127.0.0.1:{guarded}", patience=30.0)
    assert isinstance(error, ConfigError)
    assert "Redis refuses the login" in error.message
    assert "wrong-secret" not in error.message
    assert trio.current_time() - began < 3


@pytest.mark.parametrize(
    "url",
    [
        f"redis://worker:{PASSWORD}@127.0.0.1:1",  # not percent-encoded
        f"redis://:{PASSWORD}@127.0.0.1:1/0",
        "redis://:geheim/nis@127.0.0.1:1",
        "redis://127.0.0.1:geheim",
        "redis://127.0.0.1:99999",
        "redis://127.0.0.1:1/geheim",
        "redis://127.0.0.1:1?db=geheim",
        "redis://[::1",
        "http://127.0.0.1",
        "127.0.0.1:6379",
        "",
    ],
)
async def test_url_that_cannot_be_read_is_a_config_error_that_shows_nothing_of_it(url: str) -> None:
    error = await error_of(url, patience=0.2)
    assert isinstance(error, ConfigError)
    assert "Redis URL" in error.message
    for part in (PASSWORD, "geheim", "pa%ss", "wo:rd"):
        assert part not in error.message


@pytest.mark.parametrize("option", ["colour=red", "socket_timeout=1", "protocol=2"])
async def test_option_that_cannot_be_used_is_named(option: str) -> None:
    error = await error_of(f"redis://:geheim@127.0.0.1:1?{option}")
    assert isinstance(error, ConfigError)
    assert option.partition("=")[0] in error.message
    assert "geheim" not in error.message


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "unix:///no/such/socket", "redis://no-such-host.invalid:6379"])
async def test_nobody_there_is_said_after_the_patience(url: str) -> None:
    error = await error_of(url, patience=0.3, connect_timeout=0.2)
    assert isinstance(error, NotSent)
    assert error.message.startswith("no connection to Redis: ")
    assert len(error.message) > len("no connection to Redis: ")


async def test_database_number(valkey: str) -> None:
    async with connected(f"{valkey}/3") as three, connected(f"{valkey}?db=3") as again, connected(valkey) as zero:
        await three.call("SET", "k", "v")
        assert await again.call("GET", "k") == b"v"
        assert await zero.call("GET", "k") is None
        await works(three)


async def test_database_that_does_not_exist(valkey: str) -> None:
    error = await error_of(f"{valkey}/99", patience=30.0)
    assert isinstance(error, ConfigError)
    assert "DB index" in error.message


async def test_unix_socket(valkey: str) -> None:
    with redis.Redis.from_url(valkey, decode_responses=True) as db:
        path = db.config_get("unixsocket")["unixsocket"]
    assert path
    async with connected(f"unix://{path}?db=2") as bridge:
        await works(bridge)
        await bridge.call("SET", "k", "v")
    async with connected(f"{valkey}/2") as bridge:
        assert await bridge.call("GET", "k") == b"v"


# -- TLS, ended by the test in front of the plain server


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_tls_with_an_authority_of_ones_own(tls_port: int, host: str) -> None:
    async with connected(f"rediss://{host}:{tls_port}/1?ssl_ca_certs={TLS / 'ca.pem'}") as bridge:
        await works(bridge)
        value = b"x" * 2**20
        await bridge.call("SET", "big", value)
        assert await bridge.call("GET", "big") == value


async def test_tls_certificate_of_an_unknown_authority_is_refused(tls_port: int) -> None:
    error = await error_of(f"rediss://localhost:{tls_port}", patience=0.5)
    assert "certificate" in error.message.lower()


async def test_plain_client_of_a_tls_port_and_the_other_way_round(tls_port: int, valkey: str) -> None:
    for url in (f"redis://127.0.0.1:{tls_port}", valkey.replace("redis://", "rediss://")):
        assert isinstance(await error_of(url, patience=0.5, connect_timeout=0.3), NotSent)


# -- rights


@pytest.mark.parametrize("user", ["reader", "nocall"])
async def test_user_without_the_right_to_functions_is_told_which_it_needs(guarded: str, user: str) -> None:
    with pytest.raises(ConfigError, match="FUNCTION LOAD") as caught:
        async with open_queue(f"redis://{user}:{user}-pw@127.0.0.1:{guarded}"):
            pass
    assert "-pw" not in caught.value.message


async def test_user_who_may_not_subscribe_can_still_work_and_does_not_hammer_the_server(guarded: str) -> None:
    async with connected(f"redis://deaf:deaf-pw@127.0.0.1:{guarded}") as bridge:
        await library.ensure(bridge)

        async def connections() -> int:
            info = await bridge.call("INFO", "stats")
            return int(info.decode().partition("total_connections_received:")[2].split()[0])

        async with bridge.subscribe("c"):
            before = await connections()
            await trio.sleep(1)
            assert await connections() - before <= 25
        assert await bridge.call("PING") == b"PONG"

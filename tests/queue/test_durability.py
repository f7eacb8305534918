"""What a Redis may lose, as values and on real servers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
import structlog.testing

from emp_trio.queue.bridge import open_bridge
from emp_trio.queue.durability import durability_risks, risks_of, tell_risks
from emp_trio.queue.embedded import open_embedded_server
from emp_trio.queue.port import RedisSettings
from emp_trio.secrets import Secret
from emp_trio.testing.valkey import valkey_server

SAFE = {"aof_enabled": "1", "maxmemory_policy": "noeviction", "maxmemory": "1000"}
ALWAYS = {"appendfsync": "always", "save": ""}


@pytest.mark.parametrize(
    ("info", "config", "said"),
    [
        ({}, ALWAYS, []),
        ({"aof_enabled": "1"}, {"appendfsync": "everysec"}, ["up to two when it is killed"]),
        ({"aof_enabled": "1"}, {"appendfsync": "no"}, ["half minute"]),
        ({"aof_enabled": "1"}, {}, ["up to two seconds"]),
        ({"aof_enabled": "1"}, {"appendfsync": "of another server"}, ["up to two seconds"]),
        ({"aof_enabled": "0"}, {"save": ""}, ["all jobs"]),
        ({"aof_enabled": "0", "rdb_changes_since_last_save": "17"}, {"save": "3600 1"}, ["17 changes at the moment"]),
        ({"aof_enabled": "0", "rdb_changes_since_last_save": "17"}, {}, ["17 changes at the moment"]),
        ({"maxmemory_policy": "allkeys-lru"}, ALWAYS, ["any job, once its memory reaches 1000"]),
        ({"maxmemory_policy": "volatile-ttl", "maxmemory_human": "1K"}, ALWAYS, ["results of completed jobs"]),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": "0"}, ALWAYS, []),
        ({"maxmemory_policy": "allkeys-random", "aof_enabled": "0"}, {}, ["since the last snapshot", "any job"]),
    ],
)  # fmt: skip
def test_risks(info: Mapping[str, str], config: Mapping[str, str], said: list[str]) -> None:
    found = durability_risks(SAFE | dict(info), config)
    assert len(found) == len(said)
    for risk, words in zip(found, said, strict=True):
        assert words in risk.loses
        assert risk.cause
        assert risk.hint.startswith("set ")


def test_a_server_that_says_nothing_is_not_judged() -> None:
    assert durability_risks({}, {}) == []


async def causes(url: str) -> list[str]:
    async with open_bridge(RedisSettings(url=Secret(url))) as bridge:
        return [risk.cause for risk in await risks_of(bridge)]


async def test_real_servers(valkey: str) -> None:
    assert await causes(valkey) == ["it writes nothing to its disk"]
    for extra, expected in (
        (("--appendonly", "yes", "--appendfsync", "everysec"), ["appendfsync is everysec"]),
        (("--appendonly", "yes", "--appendfsync", "always"), []),
        (
            ("--save", "3600 1", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"),
            ["it writes snapshots only (appendonly no)", "maxmemory-policy is allkeys-lru"],
        ),
    ):
        with valkey_server(*extra) as url:
            assert await causes(url) == expected


@pytest.mark.parametrize(
    ("forbidden", "expected"),
    [
        (("-config",), ["appendfsync can't be read, because CONFIG is not allowed"]),
        (("-config", "-info"), []),
    ],
)
async def test_a_user_who_may_not_ask_is_told_what_can_be_known(
    forbidden: tuple[str, ...], expected: list[str]
) -> None:
    with ExitStack() as stack:
        url = stack.enter_context(valkey_server("--appendonly", "yes", password="boss"))
        db = stack.enter_context(redis.Redis.from_url(url))
        db.execute_command("ACL", "SETUSER", "worker", "on", ">pw", "+@all", *forbidden, "~*", "&*")
        assert await causes(f"redis://worker:pw@127.0.0.1:{url.rpartition(':')[2]}") == expected


async def test_they_are_told_in_the_log(valkey: str) -> None:
    async with open_bridge(RedisSettings(url=Secret(valkey))) as bridge:
        with structlog.testing.capture_logs() as logs:
            await tell_risks(bridge)
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("redis.may_lose", "warning")
    assert line["loses"] == "all jobs, when it stops"


async def test_the_embedded_server_loses_nothing_that_it_has_answered(tmp_path: Path) -> None:
    async with open_embedded_server(tmp_path) as server:
        assert await causes(server.url) == []

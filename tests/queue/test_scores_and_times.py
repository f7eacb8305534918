"""Scores of queue protocol 1.2 and 8.1, and the calendar that the function library has to bring along."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any

import pytest
import redis

from tests.queue.support import Library, iso

T = 1759600000000


@pytest.mark.parametrize(
    ("priority", "score"),
    [
        (1, 999998240400000),
        (9, 8999998240400000),
        (10, 9999998240400000),
        (50, 49999998240400000),
        (100, 99999998240400000),
    ],
)
def test_score_of_a_submitted_job(lib: Library, priority: int, score: int) -> None:
    submit(lib, "j", priority=priority, created_at=iso(T))
    assert lib.db.zscore("jobs:pending", "j") == float(score)


@pytest.mark.parametrize(
    ("fields", "priority", "ms"),
    [
        ({"priority": 20, "workflow_priority": 70}, 70, T),
        ({"priority": 20, "workflow_priority": 0}, 20, T),
        ({"priority": 20, "workflow_priority": ""}, 20, T),
        ({"priority": 20, "workflow_datetime": T - 86_400_000}, 20, T - 86_400_000),
        ({"priority": 20, "workflow_datetime": 0}, 20, T),
        ({"priority": 20, "workflow_priority": 3, "workflow_datetime": 1234567890123}, 3, 1234567890123),
        ({}, 50, T),
        ({"priority": "high"}, 50, T),
        ({"priority": -3}, -3, T),
        ({"priority": 20, "created_at": iso(T + 999)}, 20, T),  # whole seconds
    ],
)
def test_score_follows_workflow_then_job(lib: Library, fields: dict[str, Any], priority: int, ms: int) -> None:
    submit(lib, "j", **({"created_at": iso(T)} | fields))
    assert lib.db.zscore("jobs:pending", "j") == float(priority * 10**15 - ms // 1000)


@pytest.mark.parametrize("created_at", ["", "yesterday", "1759600000000", "2025-13-45"])
def test_job_without_a_readable_time_sorts_as_of_now(lib: Library, created_at: str) -> None:
    submit(lib, "j", priority=1, created_at=created_at)
    now = lib.db.time()[0]
    assert abs(lib.db.zscore("jobs:pending", "j") - (10**15 - now)) <= 5


@pytest.mark.parametrize("way", ["release", "retry", "delayed", "reaped", "new life"])
def test_job_comes_back_to_the_exact_place_it_had(lib: Library, way: str) -> None:
    for number in range(5):
        submit(lib, f"j{number}", priority=60, created_at=iso(T + number * 86_400_000))
    before = lib.db.zrange("jobs:pending", 0, -1, withscores=True)
    token = lib.claim("w1")["jobs"]["j0"][1]
    lib.start("j0", token)
    match way:
        case "release" | "retry":
            lib.settle("j0", token, way, count=1)
        case "delayed":
            lib.settle("j0", token, "retry", count=1, delay=30)
            assert "j0" in lib.db.zrange("emp:delayed", 0, -1)
            lib.make_due()
            lib.call("reap", 10, 3)
        case "reaped":
            lib.expire_leases()
            lib.call("reap", 10, 3)
        case _:
            lib.settle("j0", token, "failed", count=3)
            lib.call("retry", "j0", "nonce")
    assert lib.db.zrange("jobs:pending", 0, -1, withscores=True) == before


def test_delay_is_kept_to_the_millisecond(lib: Library) -> None:
    submit(lib, "j")
    token = lib.claim("w1")["jobs"]["j"][1]
    seconds, micros = lib.db.time()
    lib.settle("j", token, "retry", count=1, delay=12.345)
    due = lib.db.zscore("emp:delayed", "j") - (seconds * 1000 + micros // 1000)
    assert 12_345 <= due < 12_345 + 2_000


def submit(lib: Library, job_id: str, **fields: Any) -> None:
    flat = [str(p) for pair in ({"service_required": "comfyui"} | fields).items() for p in pair]
    assert lib.call("submit", job_id, "nonce", "{}", *flat) == "submitted"


PROBES = """
local function each(work)
  return function(_, argv)
    local found = {}
    for _, value in ipairs(argv) do found[#found + 1] = tostring(work(value)) end
    return found
  end
end
redis.register_function('probe_iso_of', each(function(ms) return iso_of(tonumber(ms)) end))
redis.register_function('probe_ms_of', each(function(text) return int(ms_of(text) or -1) end))
redis.register_function('probe_clock', function()
  local now = clock()
  return {int(now.ms), now.iso, now.lua, now.text}
end)
"""


@pytest.fixture
def probe(valkey: str) -> Any:
    """The library's first file with its local functions made callable."""
    common = (resources.files("emp_trio.queue") / "functions" / "common.lua").read_text(encoding="utf-8")
    with redis.Redis.from_url(valkey, decode_responses=True) as db:
        db.function_load(f"#!lua name=probe\n{common}\n{PROBES}")
        yield lambda name, *args: db.fcall(f"probe_{name}", 0, *args)


def instants() -> list[int]:
    """Milliseconds since the epoch: ends of years and months, leap days, and many at random, from 1970 to 2199."""
    found = [0, 999, 1000, 86_399_999, 86_400_000]
    for year in [*range(1970, 2110), 2196, 2199]:
        for month in (1, 2, 3, 12):
            first = datetime(year, month, 1, tzinfo=UTC)
            found += [_ms(first + timedelta(milliseconds=d)) for d in (0, 1, -1) if year > 1970 or d >= 0]
    rnd = random.Random(7)
    return [m for m in found if m >= 0] + [rnd.randrange(7_258_118_400_000) for _ in range(3000)]


def _ms(at: datetime) -> int:
    return round((at - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1))


def test_calendar_of_the_library_is_that_of_python(probe: Any) -> None:
    numbers = instants()
    for start in range(0, len(numbers), 500):
        batch = numbers[start : start + 500]
        texts = [
            (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds")[:23]
            + "Z"
            for ms in batch
        ]
        assert probe("iso_of", *batch) == texts
        assert [int(ms) for ms in probe("ms_of", *texts)] == [ms // 1000 * 1000 for ms in batch]


def test_times_of_a_call_agree_with_each_other_and_with_the_server(probe: Any) -> None:
    for _ in range(200):
        ms, text, lua, ms_text = probe("clock")
        assert ms == ms_text
        assert text == iso(int(ms))
        assert lua.replace(".", "")[:13] == ms_text
        assert len(lua.partition(".")[2]) == 6

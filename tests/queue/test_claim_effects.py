"""A claim writes and publishes what the fleet's own function does (queue protocol 3.3), and a lease beside it."""

from __future__ import annotations

import json
import re
import time

import pytest

from tests.queue.support import Ear, Library

LUA_TIME = re.compile(r"\d{10}\.\d{6}")


@pytest.fixture
def claimed(lib: Library, ear: Ear) -> tuple[Library, dict[str, str], list[tuple[str, dict[str, object]]]]:
    """A job, claimed: the library, the hash as it was before, what was published."""
    lib.submit(
        "j", customer_id="c1", workflow_id="wf", current_step=1, total_steps=2, payload={"prompt": 'a "b"/c', "n": 1}
    )
    before = lib.job("j")
    ear.heard()
    lib.claim("w1", nonces=("nonce",), lease=15)
    return lib, before, ear.heard()


def test_hash_of_the_job(claimed: tuple[Library, dict[str, str], object]) -> None:
    lib, before, _ = claimed
    after = lib.job("j")
    assert LUA_TIME.fullmatch(after["assigned_at"])
    assert abs(float(after["assigned_at"]) - time.time()) < 5
    assert after == before | {
        "status": "assigned",
        "worker_id": "w1",
        "assigned_at": after["assigned_at"],
        "lease_token": "nonce/1",
        "lease_worker": "w1",
        "attempt": "1",
    }


def test_lists_of_the_fleet(claimed: tuple[Library, dict[str, str], object]) -> None:
    lib, before, _ = claimed
    assert lib.db.zscore("jobs:pending", "j") is None
    assert list(lib.db.hgetall("jobs:active:w1")) == ["j"]
    assert json.loads(lib.db.hget("jobs:active:w1", "j")) == before
    worker = lib.db.hgetall("worker:w1")
    assert LUA_TIME.fullmatch(worker.pop("last_status_change"))
    assert worker == {"status": "busy", "current_job_id": "j"}


def test_lease_ends_in_15_seconds_of_redis_time(claimed: tuple[Library, object, object]) -> None:
    lib = claimed[0]
    seconds, micros = lib.db.time()
    left = lib.db.zscore("emp:leases", "j") - (seconds * 1000 + micros / 1000)
    assert 13_000 < left <= 15_000


def test_entry_of_the_progress_stream(claimed: tuple[Library, object, object]) -> None:
    [(_, entry)] = claimed[0].db.xrange("progress:j")
    assert LUA_TIME.fullmatch(entry.pop("assigned_at"))
    assert entry == {
        "job_id": "j",
        "worker_id": "w1",
        "status": "assigned",
        "progress": "0",
        "message": "Job assigned to worker",
    }


def test_messages(claimed: tuple[Library, object, list[tuple[str, dict[str, object]]]]) -> None:
    messages = claimed[2]
    assert [channel for channel, _ in messages] == [
        "job_claimed",
        "update_job_progress",
        "worker_status",
        "machine:m1:worker:w1",
    ]
    told = dict(messages)
    stamp = told["update_job_progress"]["timestamp"]
    assert isinstance(stamp, int)
    assert abs(stamp / 1000 - time.time()) < 5
    claimed_at = told["job_claimed"]["claimed_at"]
    assert isinstance(claimed_at, str)
    assert LUA_TIME.fullmatch(claimed_at)
    assert told["job_claimed"] == {  # queue protocol 2.2: strings from the hash, whole seconds
        "job_id": "j",
        "worker_id": "w1",
        "status": "claimed",
        "message": "Job claimed by worker",
        "claimed_at": claimed_at,
        "timestamp": stamp // 1000 * 1000,
        "service_required": "comfyui",
        "customer_id": "c1",
        "workflow_id": "wf",
        "total_steps": "2",
    }
    assert told["update_job_progress"] == {"job_id": "j", "worker_id": "w1", "progress": 0, "timestamp": stamp}
    assert told["worker_status"] == {
        "worker_id": "w1",
        "old_status": "idle",
        "new_status": "busy",
        "current_job_id": "j",
        "timestamp": stamp,
    }
    assert told["machine:m1:worker:w1"] == {
        "worker_id": "w1",
        "event_type": "worker_status_changed",
        "timestamp": stamp,
        "data": {"status": "busy", "is_connected": True, "last_activity": stamp, "current_job_id": "j"},
    }


def test_ids_and_values_that_need_escaping_in_messages(lib: Library, ear: Ear) -> None:
    job_id = 'a"b\\c/é\n{}%1'
    lib.submit(job_id, customer_id='c"\\', workflow_id="wf%d/")
    ear.heard()
    _, token, _ = lib.claim('w"1', machine='m"1')["jobs"][job_id]
    assert lib.start(job_id, token, 'm"1')
    lib.call("progress", job_id, token, "12.5", 'say "hi" %s', "step\\1", "4")
    lib.settle(job_id, token, "release")
    heard = ear.heard()
    assert {m["worker_id"] for _, m in heard} == {'w"1'}
    assert {m["job_id"] for _, m in heard if "job_id" in m} == {job_id}
    claimed = dict(heard)["job_claimed"]
    assert (claimed["customer_id"], claimed["workflow_id"]) == ('c"\\', "wf%d/")
    assert [m["progress"] for c, m in heard if c == "update_job_progress"] == [0, 1, 12.5]
    assert heard[-1][1]["data"]["current_job_id"] is None


def test_payload_of_any_bytes_comes_through(lib: Library) -> None:
    raw = bytes(range(256))
    lib.submit("j")
    lib.db.hset("job:j", "payload", raw)
    reader = type(lib.db).from_url(lib.url)
    with reader:
        reply = reader.fcall(
            "emp_trio_claim", 0, '{"job_service_required_map":["comfyui"]}', "m1", 15000, 0, 512, "0", "w1", "n"
        )
        flat = reply[2][0][3]
        assert flat[flat.index(b"payload") + 1] == raw

"""Whatever stands in Redis: after any sequence of calls each job is in exactly one place, and no call fails after it
wrote. Hashes, lists and ids of every shape, on a real server."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from tests.queue.support import Ear, Library

ODD_NUMBERS = (
    "nan",
    "inf",
    "-inf",
    "0x1F",
    "1e15",
    "1e300",
    "-1e300",
    "-3",
    "2.5",
    "9" * 400,
    " 7 ",
    "1_0",
    "",
    "x",
    "\xd9\xa3",
)
STATUSES = (
    "pending",
    "assigned",
    "in_progress",
    "accepted",
    "queued",
    "weird",
    "completed",
    "failed",
    "cancelled",
    "",
    "\xff",
)
LONG = {
    "<long>": "x" * 20_000,
    "<huge>": "p" * 100_000,
    "<models>": '{"models": ' + json.dumps(["m"] * 3000) + "}",
    "<dots>": '{"a' + ".b" * 3000 + '": 1}',
    "<deep>": "[" * 900 + "]" * 900,
}
"""Values that are too long to be shown, by what stands for them."""
REQUIREMENTS = ("", "{}", "[]", "[1]", "null", "5", '"x"', "{bad", '{"models": [null]}',
                '{"positive_requirements": [1]}',
                '{"hardware": {"ram_gb": "1"}}', '{"a": NaN}', '{"a": 0x10}', "\xff\xfe", *LONG)  # fmt: skip
WORKERS = ("w1", "w2", "ts-1", "", "nobody", 'w"\n', "\xff")
TOKENS = ("", "n/1", "n1/1", "left/w1", "x", "n/1e+15", "\xff")

TEXT = st.sampled_from(("", "x", "wf", "\xff\xfe", "<long>", 'q"\\'))
FIELDS: dict[str, st.SearchStrategy[str]] = {
    "id": st.sampled_from(("j", "other", "", "\xff")),
    "service_required": st.sampled_from(("comfyui", "comfyui", "comfyui", "p5", "", "\xff", "<long>")),
    "status": st.sampled_from(STATUSES),
    "worker_id": st.sampled_from(WORKERS),
    "lease_worker": st.sampled_from(WORKERS),
    "lease_token": st.sampled_from(TOKENS),
    "settled_token": st.sampled_from(TOKENS),
    "requirements": st.sampled_from(REQUIREMENTS),
    "payload": st.sampled_from(("{}", "", "{bad", "\xff", "<huge>")),
    "error": TEXT,
    "cancelled_at": TEXT,
    "created_at": st.sampled_from(("2026-01-01T00:00:00.000Z", "9999-99-99T99:99:99", "", "soon", "<long>")),
    **dict.fromkeys(("customer_id", "workflow_id", "ctx", "checkpoint", "submit_token", "retry_token"), TEXT),
    **{
        name: st.sampled_from((*ODD_NUMBERS, "1", "2"))
        for name in (
            "attempt crashes unstarted retry_count max_retries priority workflow_priority workflow_datetime "
            "current_step total_steps deadline"
        ).split()
    },
}  # fmt: skip
HASHES = st.fixed_dictionaries({}, optional=FIELDS)


def written(fields: dict[str, str]) -> dict[str, str]:
    """A hash with its long values."""
    return {name: LONG.get(value, value) for name, value in fields.items()}


IDS = ("j", "step-k", "a/b\n", "v:progress", "v", "w:attempt:1", "\xff\xfe", "", "i" * 300, "é")
LISTS = ("jobs:pending", "emp:leases", "emp:delayed")
OTHERS = ("jobs:active:w1", "jobs:failed", "jobs:completed", "worker:w1", "workers:active", "emp:processes",
          "progress:j", "job:j:progress", "worker:w1:heartbeat")  # fmt: skip
KINDS = ("string", "list", "set", "hash", "zset", "stream")
CALLS = ("claim", "start", "begin", "progress", "remember", "renew", "completed", "failed", "retry", "release", "reap",
         "expire", "due", "cancel", "again", "beat", "leave", "depart", "adopt", "alive",
         "age")  # fmt: skip


def put(db: Any, key: str, kind: str) -> None:
    """A key of some type, in place of whatever is there."""
    db.delete(key)
    match kind:
        case "string":
            db.set(key, "x")
        case "list":
            db.rpush(key, "x")
        case "set":
            db.sadd(key, "x")
        case "hash":
            db.hset(key, "x", "x")
        case "zset":
            db.zadd(key, {"x": 1})
        case _:
            db.xadd(key, {"x": "x"})


class Latin(redis.Redis):
    """A connection on which each character stands for a byte: hiredis would write all text as UTF-8."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        raw = [part.encode("latin-1") if isinstance(part, str) else part for part in args[1:]]
        return super().execute_command(args[0], *raw, **options)


class Scene:
    """Calls of every function on whatever there is, each with what a holder of the lease would say."""

    def __init__(self, url: str) -> None:
        self.lib = Library(url)
        self.db: Any = Latin.from_url(url, decode_responses=True, encoding="latin-1")
        self.lib.db.close()
        self.lib.db = self.db

    def token(self, job: str) -> str:
        try:
            return self.db.hget(f"job:{job}", "lease_token") or "n/1"
        except redis.ResponseError:
            return "n/1"

    def do(self, what: str, job: str) -> Any:
        lib, token = self.lib, self.token(job)
        slots = json.dumps([[worker, "t", 0, 0, "1", "now", ""] for worker in ("w1", "w2")])
        match what:
            case "claim":
                return lib.claim("w1", "w2", "w3")
            case "start":
                return lib.call("start", "m1", job, token)
            case "begin":
                return lib.call("begin", "m1", "1", "both", job, token)
            case "progress":
                return lib.call("progress", job, token, "10", "said", "", "0")
            case "remember":
                return lib.call("remember", job, token, "{}")
            case "renew":
                return lib.call("renew", 15000, job, token)
            case "completed" | "failed" | "retry" | "release":
                return lib.settle(job, token, what, count=1, delay=0.0 if what == "failed" else 30.0)
            case "reap":
                return lib.call("reap", 100, 3, "m1")
            case "expire" | "due":
                return self._shift("emp:leases" if what == "expire" else "emp:delayed")
            case "cancel":
                return lib.call("cancel", job, "enough")
            case "again":
                return lib.call("retry", job, lib.nonce())
            case "beat":
                return lib.call("beat", "m1", "now", "1", "{}", '{"t": "{}"}', slots)
            case "leave":
                return lib.call("leave", "p1", 2, "w1", "w2")
            case "alive":
                return lib.call("alive", "p1", "m1", "host 1", "0", "0", 0, 1000, 0, "w1", "w2")
            case "age":
                return lib.call("age", "w1", "w2")
            case "depart":
                return lib.call("depart", "m1", 100)
            case _:
                return lib.call("adopt", "ts-1", 3, 100)

    def _shift(self, key: str) -> None:
        if self.db.type(key) == "zset":
            for member in self.db.zrange(key, 0, -1):
                self.db.zadd(key, {member: 1})

    def snapshot(self) -> dict[str, Any]:
        """Everything there is, but for the times at which machines looked."""
        return {
            key: self._read(key) for key in self.db.keys("*") if not key.startswith(("emp:processes", "emp:process"))
        }

    def _read(self, key: str) -> Any:
        match self.db.type(key):
            case "hash":
                return self.db.hgetall(key)
            case "zset":
                return self.db.zrange(key, 0, -1, withscores=True)
            case _:
                return self.db.dump(key)

    def places(self, job: str) -> list[str]:
        """Where a job is: lists of ours and the fleet's, a worker that knows of no leases, or an end."""
        db = self.db
        found = [key for key in LISTS if db.type(key) == "zset" and db.zscore(key, job) is not None]
        status, worker = db.hmget(f"job:{job}", "status", "worker_id")
        listed = f"jobs:active:{worker}"
        if not found and status in ("assigned", "in_progress", "accepted") and db.type(listed) == "hash":
            found += [listed] if db.hexists(listed, job) else []
        ended = status in ("completed", "failed", "cancelled", "timeout", "unworkable")
        failed = db.type("jobs:failed") == "hash" and db.hexists("jobs:failed", job)
        return found or (["settled"] if ended or failed else [])


SETTINGS = settings(
    max_examples=300,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # a shorter example takes longer to find than to do without
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture
def scene(valkey: str) -> Any:
    made = Scene(valkey)
    yield made
    made.db.close()


def is_a_job(fields: dict[str, str]) -> bool:
    return bool(fields.get("id") or fields.get("service_required"))


@given(
    job=st.sampled_from(IDS),
    fields=HASHES,
    place=st.sampled_from(LISTS),
    calls=st.lists(st.sampled_from(CALLS), min_size=1, max_size=8),
)
@example(job="j", fields={"id": "j", "status": "pending", "lease_token": "n/1"}, place="jobs:pending", calls=["claim"])
@example(
    job="j",
    fields={"id": "j", "status": "accepted", "worker_id": "w1", "lease_worker": "w1"},
    place="emp:leases",
    calls=["expire", "reap"],
)
@example(
    job="j", fields={"id": "j", "service_required": "comfyui", "attempt": "1e15"}, place="jobs:pending", calls=["claim"]
)
@example(
    job="j",
    fields={"id": "j", "status": "in_progress", "lease_token": "x"},
    place="emp:leases",
    calls=["expire", "reap"],
)
@example(job="j", fields={"id": "j", "status": "weird"}, place="emp:delayed", calls=["due", "reap", "claim"])
@SETTINGS
def test_a_job_of_any_shape_is_in_one_place_after_each_call(
    scene: Scene, job: str, fields: dict[str, str], place: str, calls: list[str]
) -> None:
    db = scene.db
    db.flushall()
    if fields:
        db.hset(f"job:{job}", mapping=written(fields))
    db.zadd(place, {job: 5e16 if place == "jobs:pending" else 9e12})
    if fields.get("status") in ("assigned", "in_progress", "accepted") and fields.get("worker_id"):
        db.hset(f"jobs:active:{fields['worker_id']}", job, "{}")
    if job == "v:progress":
        db.hset("job:v", mapping={"id": "v", "service_required": "comfyui", "status": "completed"})
    theirs = db.hgetall("job:v") if job == "v:progress" else None
    dropped: dict[str, str] = {}
    for what in calls:
        reply = scene.do(what, job)
        if what == "claim":
            dropped |= reply["dropped"]
        places = scene.places(job)
        assert len(places) <= 1, (what, places)
        if is_a_job(fields) and not places:
            assert dropped, f"after {what} the job is nowhere, and nobody said why"
    if theirs is not None:
        assert db.hgetall("job:v") == theirs


@given(
    broken=st.dictionaries(st.sampled_from((*LISTS, *OTHERS)), st.sampled_from(KINDS), min_size=1, max_size=3),
    fields=HASHES,
    place=st.sampled_from(LISTS),
    calls=st.lists(st.sampled_from(CALLS), min_size=1, max_size=6),
)
@SETTINGS
def test_a_call_that_fails_for_a_broken_key_has_changed_nothing(
    scene: Scene, broken: dict[str, str], fields: dict[str, str], place: str, calls: list[str]
) -> None:
    db = scene.db
    db.flushall()
    db.hset("job:j", mapping={"id": "j", "service_required": "comfyui", "status": "pending", **written(fields)})
    db.zadd(place, {"j": 5e16 if place == "jobs:pending" else 9e12})
    for key, kind in broken.items():
        if key != place:
            put(db, key, kind)
    for what in calls:
        before = scene.snapshot()
        was = scene.places("j")
        refused = ""
        try:
            scene.do(what, "j")
        except redis.ResponseError as error:
            refused = str(error)
        if refused:
            assert "is not a sorted set" in refused, what
            assert scene.snapshot() == before, f"{what} failed half way"
        if was:
            assert len(scene.places("j")) == 1, what


# Holders of a lease name ids and workers that a claim has brought: those are UTF-8.
UNHELD = ("claim", "reap", "expire", "due", "cancel", "again", "beat", "leave", "depart", "adopt", "alive")


@given(fields=HASHES, sent=st.lists(st.sampled_from(UNHELD), min_size=1, max_size=6), job=st.sampled_from(IDS))
@settings(SETTINGS, max_examples=150)
def test_everything_that_is_published_is_json_in_utf_8(
    scene: Scene, valkey: str, fields: dict[str, str], sent: list[str], job: str
) -> None:
    scene.db.flushall()
    scene.db.hset(f"job:{job}", mapping={"id": "j", "service_required": "comfyui", **written(fields)})
    scene.db.zadd("jobs:pending", {job: 5e16})
    ear = Ear(valkey)  # decodes as UTF-8, strictly
    try:
        for what in ("claim", *sent):
            scene.do(what, job)
        ear.heard()
    finally:
        ear.close()


@pytest.mark.parametrize("odd", ODD_NUMBERS)
def test_counts_stay_whole_numbers_of_a_bounded_size(scene: Scene, odd: str) -> None:
    for _ in range(3):
        scene.db.flushall()
        counts = dict.fromkeys(("attempt", "crashes", "unstarted", "retry_count"), odd)
        scene.lib.submit("j", **counts, max_retries=odd)
        _, token, _ = scene.lib.claim("w1")["jobs"]["j"]
        assert set(token.rpartition("/")[2]) <= set(string.digits)
        assert len(token.rpartition("/")[2]) < 16
        scene.lib.start("j", token)
        scene.lib.expire_leases()
        scene.lib.call("reap", 10, 3)
        job = scene.lib.job("j")
        for name in ("attempt", "crashes", "unstarted", "retry_count"):
            assert set(job[name]) <= set(string.digits), name
            assert int(job[name]) <= 10**9 + 1

"""Every function may be sent twice: a repeat with the same token changes nothing and says nothing more."""

from __future__ import annotations

import pytest

from tests.queue.support import Ear, Library


def state(lib: Library) -> dict[str, object]:
    """All that the server holds, but for times."""
    found: dict[str, object] = {}
    for key in sorted(lib.db.keys("*")):
        match lib.db.type(key):
            case "hash":
                found[key] = lib.db.hgetall(key)
            case "zset":
                found[key] = lib.db.zrange(key, 0, -1)
            case "stream":
                found[key] = lib.db.xlen(key)
            case "set":
                found[key] = lib.db.smembers(key)
            case _:
                found[key] = lib.db.get(key)
    return found


def lease_left(lib: Library, job_id: str) -> float:
    """Seconds until a lease ends, by the server's clock."""
    seconds, micros = lib.db.time()
    return float(lib.db.zscore("emp:leases", job_id)) / 1000 - (seconds + micros / 1e6)


def test_claim_whose_reply_was_lost_returns_the_same_jobs(lib: Library, ear: Ear) -> None:
    for number in range(5):
        lib.submit(f"j{number}", priority=50 - number, payload={"n": number})
    slots, nonces = ("w1", "w2", "w3"), ("a", "b", "c")
    first = lib.claim(*slots, nonces=nonces)
    before = state(lib)
    ear.heard()
    again = lib.claim(*slots, nonces=nonces, repeated=True)
    assert {j: (w, t) for j, (w, t, _) in again["jobs"].items()} == {
        j: (w, t) for j, (w, t, _) in first["jobs"].items()
    }
    assert [f["payload"] for _, _, f in again["jobs"].values()] == ['{"n": 0}', '{"n": 1}', '{"n": 2}']
    assert state(lib) == before
    assert ear.heard() == []


def test_claim_that_never_arrived_claims_when_it_is_repeated(lib: Library) -> None:
    lib.submit("j")
    assert list(lib.claim("w1", nonces=("a",), repeated=True)["jobs"]) == ["j"]


def test_claim_that_found_little_is_filled_up_when_it_is_repeated(lib: Library) -> None:
    lib.submit("first")
    lib.claim("w1", "w2", "w3", nonces=("a", "b", "c"))
    lib.submit("second")
    again = lib.claim("w1", "w2", "w3", nonces=("a", "b", "c"), repeated=True)
    assert {j: w for j, (w, _, _) in again["jobs"].items()} == {"first": "w1", "second": "w2"}


def test_repeated_claim_renews_the_lease_that_the_caller_counts_from_now_on(lib: Library) -> None:
    lib.submit("j")
    lib.claim("w1", nonces=("a",), lease=15)
    lib.db.zadd("emp:leases", {"j": lib.db.zscore("emp:leases", "j") - 14_500})
    assert lease_left(lib, "j") < 1
    lib.claim("w1", nonces=("a",), lease=15, repeated=True)
    assert lease_left(lib, "j") > 13


def test_repeated_claim_does_not_return_a_job_that_was_given_to_another(lib: Library) -> None:
    lib.submit("j")
    lib.claim("w1", nonces=("a",))
    lib.expire_leases()
    lib.call("reap", 100, 3)
    lib.claim("w2", nonces=("b",))
    assert lib.claim("w1", nonces=("a",), repeated=True)["jobs"] == {}
    assert lib.job("j")["lease_worker"] == "w2"


def test_repeated_claim_does_not_return_a_job_that_an_old_worker_has_taken(lib: Library) -> None:
    lib.submit("j")
    lib.claim("w1", nonces=("a",))
    lib.db.hset("job:j", "worker_id", "old-1")  # put back by the API and claimed: neither touches the lease
    assert lib.claim("w1", nonces=("a",), repeated=True)["jobs"] == {}


def test_nonces_that_begin_alike_are_kept_apart(lib: Library) -> None:
    lib.submit("j")
    lib.claim("w1", nonces=("a1",))
    assert lib.claim("w1", nonces=("a",), repeated=True)["jobs"] == {}


@pytest.mark.parametrize("kind", ["completed", "failed", "retry", "release"])
def test_settle(lib: Library, ear: Ear, kind: str) -> None:
    lib.submit("j")
    token = lib.claim("w1")["jobs"]["j"][1]
    lib.start("j", token)
    records = {"worker:completion:step-id:j:attempt:1": "{}"}
    assert lib.settle("j", token, kind, count=1, delay=30, records=records) == [1, "done"]
    before = state(lib)
    ear.heard()
    assert lib.settle("j", token, kind, count=1, delay=30, records=records) == [1, "repeated"]
    assert lib.settle("j", token, "completed") == [1, "repeated"]  # whatever it says: this attempt has ended
    assert state(lib) == before
    assert ear.heard() == []


@pytest.mark.parametrize("kind", ["completed", "failed", "retry", "release"])
def test_late_settle_of_an_earlier_attempt_changes_nothing(lib: Library, ear: Ear, kind: str) -> None:
    lib.submit("j")
    stale = lib.claim("w1")["jobs"]["j"][1]
    lib.expire_leases()
    lib.call("reap", 100, 3)
    lib.claim("w2")
    before = state(lib)
    ear.heard()
    records = {"worker:completion:step-id:j:attempt:1": "{}"}
    assert lib.settle("j", stale, kind, count=9, records=records) == [0, "assigned"]
    assert not lib.start("j", stale)
    assert lib.call("progress", "j", stale, "50", "", "", "0") == ["j"]
    assert lib.call("remember", "j", stale, "{}") == 0
    assert lib.call("renew", 15000, "j", stale) == [["j", "lost"]]
    assert state(lib) == before
    assert ear.heard() == []


def test_holder_has_no_voice_once_an_old_worker_has_taken_the_job(lib: Library, ear: Ear) -> None:
    """The API and old workers know of no leases: they leave the token in the hash, and only the worker id tells."""
    lib.submit("j")
    stale = lib.claim("w1")["jobs"]["j"][1]
    lib.db.hset("job:j", mapping={"status": "pending", "worker_id": "", "assigned_at": ""})
    assert lib.settle("j", stale, "completed") == [0, "pending"]
    lib.db.hset("job:j", mapping={"status": "in_progress", "worker_id": "old-1"})
    assert lib.job("j")["lease_token"] == stale
    before = state(lib)
    ear.heard()
    assert lib.settle("j", stale, "completed") == [0, "in_progress"]
    assert not lib.start("j", stale)
    assert lib.call("renew", 15000, "j", stale) == [["j", "lost"]]
    assert state(lib) == before
    assert ear.heard() == []


def test_start_progress_remember_renew(lib: Library) -> None:
    lib.submit("j")
    token = lib.claim("w1")["jobs"]["j"][1]
    for _ in range(2):
        assert lib.start("j", token)
        assert lib.call("progress", "j", token, "40", "half", "2", "5") == []
        assert lib.call("remember", "j", token, '{"id":1}') == 1
        assert lib.call("renew", 15000, "j", token) == []
    job = lib.job("j")
    assert (job["status"], job["checkpoint"], job["attempt"]) == ("in_progress", '{"id":1}', "1")
    progress = lib.db.hgetall("job:j:progress")
    assert progress.pop("updated_at").endswith("Z")
    assert progress == {"progress": "40", "status": "in_progress", "message": "half"}


def test_renewal_on_its_way_while_the_job_settles_does_not_report_it_lost(lib: Library) -> None:
    lib.submit("j")
    token = lib.claim("w1")["jobs"]["j"][1]
    lib.settle("j", token, "completed")
    assert lib.call("renew", 15000, "j", token) == []
    assert lib.db.zcard("emp:leases") == 0


def test_submit(lib: Library, ear: Ear) -> None:
    args = ("j", "nonce", "{}", "service_required", "comfyui", "created_at", "2026-01-01T00:00:00.000Z")
    assert lib.call("submit", *args) == "submitted"
    before = state(lib)
    assert lib.call("submit", *args) == "submitted"
    assert lib.call("submit", "j", "other nonce", *args[2:]) == "exists"
    assert state(lib) == before
    assert len(ear.heard("job_submitted")) == 1
    lib.settle("j", lib.claim("w1")["jobs"]["j"][1], "completed")
    assert lib.call("submit", *args) == "submitted"  # a repeat that comes very late does not run the job again
    assert lib.db.zcard("jobs:pending") == 0


def test_reap(lib: Library, ear: Ear) -> None:
    lib.submit("a")
    lib.submit("b")
    jobs = lib.claim("w1", "w2")["jobs"]
    lib.settle("b", jobs["b"][1], "retry", count=1, delay=30)
    lib.expire_leases()
    lib.make_due()
    assert lib.call("reap", 100, 3) == [-1, ["a"], [], ["b"], []]
    before = state(lib)
    ear.heard()
    assert lib.call("reap", 100, 3) == [-1, [], [], [], []]
    assert state(lib) == before
    assert ear.heard() == []


def test_cancel(lib: Library, ear: Ear) -> None:
    lib.submit("j")
    assert lib.call("cancel", "j", "no longer wanted") == ["cancelled", "pending"]
    before = state(lib)
    ear.heard()
    assert lib.call("cancel", "j", "no longer wanted")[0] == "cancelled"
    assert state(lib) == before
    assert ear.heard() == []


def test_retry(lib: Library) -> None:
    lib.submit("j")
    lib.settle("j", lib.claim("w1")["jobs"]["j"][1], "failed", count=3)
    assert lib.call("retry", "j", "nonce") == ["queued", "failed"]
    before = state(lib)
    assert lib.call("retry", "j", "nonce") == ["queued", "pending"]
    assert lib.call("retry", "j", "another") == ["refused", "pending"]
    assert state(lib) == before

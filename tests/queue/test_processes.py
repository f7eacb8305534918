"""Processes of emp-trio among each other: alive, leaving, gone, and who has a slot (functions/process.lua)."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.queue.support import Library


def alive(
    lib: Library,
    nonce: str,
    *workers: str,
    seen: int = 0,
    take_over: bool = False,
    leaving: bool = False,
    silence: int = 15_000,
    suspects: tuple[str, ...] = (),
) -> dict[str, Any]:
    flags = ("01"[take_over], "01"[leaving])
    now, started, takes, found, others = lib.call(
        "alive", nonce, "m1", f"host {nonce}", *flags, seen, silence, len(suspects), *suspects, *workers
    )
    slots = list(zip(found[::2], found[1::2], strict=True))
    return {"now": now, "started": started, "takes": takes, "slots": slots, "others": {o[0]: o[1:] for o in others}}


def silent_for(lib: Library, nonce: str, ms: int) -> None:
    """As if a process had said nothing for so long."""
    last = int(lib.db.hget(f"emp:process:{nonce}", "last")) - ms
    lib.db.hset(f"emp:process:{nonce}", "last", last)


def test_a_process_is_known_with_its_slots(lib: Library) -> None:
    first = alive(lib, "a", "w1", "w2")
    assert (first["slots"], first["others"], first["takes"]) == ([], {}, 0)
    assert first["started"] == first["now"]
    assert abs(int(lib.db.hget("emp:process:a", "last")) - time.time() * 1000) < 60_000
    assert lib.db.hget("worker:w1", "process") == lib.db.hget("worker:w2", "process") == "a"
    assert 50 < lib.db.ttl("worker:w1:heartbeat") <= 60
    assert 50 < lib.db.ttl("emp:process:a") <= 60
    assert 110 < lib.db.ttl("worker:w1") <= 120
    again = alive(lib, "a", "w1", "w2", seen=first["now"])
    assert again["started"] == first["started"]
    assert lib.db.hget("emp:process:a", "seen") == str(first["now"])


def test_two_processes_find_each_other_on_their_slots(lib: Library) -> None:
    a = alive(lib, "a", "w1", "w2", "w3")
    b = alive(lib, "b", "w2", "w3", "w4", take_over=True)
    assert b["slots"] == [("w2", "a"), ("w3", "a")]
    assert b["others"] == {"a": ["m1", "host a", a["started"], 0, 0, 0]}
    a = alive(lib, "a", "w1", "w2", "w3", seen=a["now"])
    assert a["slots"] == [("w2", "b"), ("w3", "b")]
    assert a["others"] == {"b": ["m1", "host b", b["started"], 0, 1, 0]}
    assert alive(lib, "b", "w4", suspects=("a", "x"))["others"]["a"][3] == int(lib.db.hget("emp:process:a", "seen"))


def test_processes_of_different_slots_do_not_meet(lib: Library) -> None:
    alive(lib, "a", "w1")
    assert alive(lib, "b", "w2")["others"] == {}


def test_who_was_silent_for_a_lease_counts_as_started_anew_and_takes_over_nothing(lib: Library) -> None:
    first = alive(lib, "a", "w1", take_over=True)
    assert first["takes"] == 1
    silent_for(lib, "a", 14_000)
    assert alive(lib, "a", "w1")["started"] == first["started"]
    silent_for(lib, "a", 16_000)
    back = alive(lib, "a", "w1", take_over=True)
    assert back["started"] >= first["started"]
    assert back["started"] == back["now"]
    assert back["takes"] == 0


def test_who_leaves_keeps_its_slots_alive_until_they_are_taken_out(lib: Library) -> None:
    alive(lib, "a", "w1")
    lib.db.sadd("workers:active", "w1")
    lib.db.delete("worker:w1:heartbeat")
    alive(lib, "a", "w1", leaving=True)
    assert lib.db.exists("worker:w1:heartbeat")
    assert lib.call("leave", "a", 1, "w1") == 1
    alive(lib, "a", "w1")  # a call that was under way
    assert lib.db.keys("worker:*") == []
    assert lib.call("ended", "a") == 1
    assert lib.db.keys("emp:*") == []


def test_who_leaves_does_not_take_away_what_its_successor_has(lib: Library) -> None:
    alive(lib, "a", "w1", "w2")
    lib.db.sadd("workers:active", "w1", "w2")
    alive(lib, "b", "w1")
    alive(lib, "a", "w1", "w2", leaving=True)
    assert lib.db.hget("worker:w1", "process") == "b"
    lib.call("leave", "a", 2, "w1", "w2")
    assert lib.db.smembers("workers:active") == {"w1"}
    assert lib.db.exists("worker:w1", "worker:w1:heartbeat", "worker:w2", "worker:w2:heartbeat") == 2


def test_what_a_dead_process_had_can_be_taken_out(lib: Library) -> None:
    alive(lib, "dead", "w1")
    lib.db.delete("emp:process:dead")
    lib.call("leave", "a", 1, "w1")
    assert lib.db.exists("worker:w1") == 0


@pytest.mark.parametrize("key", ["emp:process:a", "worker:w1"])
def test_a_key_of_a_wrong_type_does_not_stop_the_heartbeats(lib: Library, key: str) -> None:
    lib.db.set(key, "a string")
    alive(lib, "a", "w1", "w2")
    assert lib.db.exists("worker:w1:heartbeat", "worker:w2:heartbeat") == 2
    lib.call("leave", "a", 2, "w1", "w2")
    lib.call("ended", "a")


@pytest.mark.parametrize("value", ["", "nan", "1e400", "0x10", "\x00\xff", "9" * 400])
def test_any_value_in_what_a_process_says_of_itself_can_be_read(lib: Library, value: str) -> None:
    for field in ("started", "last", "seen", "take_over", "leaving", "where"):
        lib.db.delete("worker:w1", "emp:process:a", "emp:process:b")
        alive(lib, "b", "w1")
        lib.db.hset("emp:process:b", field, value)
        lib.db.hset("emp:process:a", field, value)
        alive(lib, "a", "w1")
        alive(lib, "a", "w1")
        assert lib.db.exists("worker:w1:heartbeat")

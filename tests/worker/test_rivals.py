"""Two processes with the same slots: one of them leaves, with its reason; a restart is neither refused nor delayed."""

from __future__ import annotations

import signal
from itertools import permutations
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import ConfigError, MachineIdInUse
from emp_trio.queue.keeping import Other, Others
from emp_trio.worker.rivals import Rivals, alive, winner
from tests.queue.support import Ear
from tests.worker.processes import open_worker
from tests.worker.support import Play, eventually, open_machine, submit, until_status


def other(nonce: str, *, started: int = 0, seen: int = 0, take_over: bool = False, leaving: bool = False) -> Other:
    return Other(nonce, "m", f"host {nonce}", started, seen, take_over, leaving)


def found(*known: Other, now: int = 1000, started: int = 500, take_over: bool = False) -> Others:
    slots = tuple((f"m-worker-t-{n}", o.nonce) for n, o in enumerate(known))
    return Others(now=now, started=started, take_over=take_over, slots=slots, known=known)


# -- by values


@pytest.mark.parametrize(
    ("seen", "leaving", "is_alive"),
    [
        (0, False, False),  # it has said something once: it may be dead since
        (699, False, False),
        (700, False, False),  # it had heard of the very moment in which we saw it first
        (701, False, True),
        (9999, True, False),  # it leaves anyway: a restart that begins while the old process drains
    ],
)
def test_who_is_alive(seen: int, leaving: bool, is_alive: bool) -> None:
    one = other("x", seen=seen, leaving=leaving)
    assert alive(found(one), {"x": 700}) == ((one,) if is_alive else ())


def test_who_was_never_seen_on_a_slot_of_ours_is_no_rival() -> None:
    assert alive(found(other("x", seen=900)), {}) == ()


@pytest.mark.parametrize(
    ("mine", "theirs", "stays"),
    [
        ((500, False), (400, False), "theirs"),  # the newer one leaves
        ((500, False), (600, False), "mine"),
        ((500, True), (400, False), "mine"),  # or stays with --take-over
        ((500, False), (600, True), "theirs"),
        ((500, True), (600, True), "theirs"),  # of two that take over, the last one
        ((500, True), (400, True), "mine"),
        ((500, False), (500, False), "z"),  # ties go by the nonce
        ((500, True), (500, True), "z"),
    ],
)
def test_who_stays(mine: tuple[int, bool], theirs: tuple[int, bool], stays: str) -> None:
    for me, them in (("a", "z"), ("z", "a")):
        rival = other(them, started=theirs[0], take_over=theirs[1])
        won = winner(me, found(rival, started=mine[0], take_over=mine[1]), (rival,))
        expected = stays if stays in ("mine", "theirs") else ("mine" if me == stays else "theirs")
        assert (won is None) == (expected == "mine")


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=2, max_size=4))
def test_of_any_number_of_processes_exactly_one_stays(processes: list[tuple[int, bool]]) -> None:
    named = [other(f"n{i}", started=at, take_over=takes) for i, (at, takes) in enumerate(processes)]
    for order in permutations(named):
        staying = [
            me.nonce
            for me in order
            if winner(
                me.nonce,
                found(started=me.started, take_over=me.take_over),
                tuple(o for o in order if o is not me),
            )
            is None
        ]
        assert len(staying) == 1


def test_a_dead_process_is_watched_and_forgotten() -> None:
    rivals = Rivals("me", "m")
    assert rivals.hear(found(other("dead", seen=400))) == (("dead",), None)
    for now in (2000, 3000):
        assert rivals.hear(found(other("dead", seen=400), now=now)) == (("dead",), None)
    assert rivals.shared == set()
    assert rivals.hear(found(now=4000)) == ((), None)


def test_an_older_process_that_speaks_again_makes_this_one_leave_and_say_what_to_do() -> None:
    rivals = Rivals("me", "m")
    rivals.hear(found(other("old", started=100, seen=400)))
    suspects, error = rivals.hear(found(other("old", started=100, seen=1500), now=2000))
    assert suspects == ()
    assert isinstance(error, ConfigError)
    for part in ("'m'", "host old", "m-worker-t-0", "--machine-id", "MACHINE_ID", "--take-over", "host name"):
        assert part in error.message
    assert rivals.shared == {"m-worker-t-0"}


def test_a_newer_process_is_watched_and_its_slots_are_left_registered_until_it_is_gone() -> None:
    rivals = Rivals("me", "m")
    rivals.hear(found(other("new", started=900, seen=900)))
    assert rivals.hear(found(other("new", started=900, seen=1500), now=2000)) == (("new",), None)
    assert rivals.shared == {"m-worker-t-0"}
    rivals.hear(found(now=3000))
    assert rivals.shared == set()


def test_a_process_that_leaves_gives_way_and_needs_no_reason() -> None:
    rivals = Rivals("me", "m")
    rivals.hear(found(other("old", started=100, seen=400)))
    assert rivals.hear(found(other("old", started=100, seen=1500), now=2000), leaving=True) == ((), None)
    assert rivals.shared == {"m-worker-t-0"}


# -- in the test's own run


async def test_two_machines_of_one_id_the_newer_one_hands_back_and_leaves(valkey: str, db: Any, ear: Ear) -> None:
    old, new = Play(), Play()
    async with open_machine(valkey, {"t": old}, slots=1, lease=15.0):
        first = submit(db, "t")
        await old.until_begun()
        second = submit(db, "t")
        with pytest.raises(MachineIdInUse):  # noqa: PT012 - the body waits for it
            async with open_machine(valkey, {"t": new}, slots=1, lease=15.0):
                await new.until_begun()  # it was not kept waiting
                await trio.sleep(60)
        assert new.attempts[0].cancelled
        old.finish.set()
        for job_id in (first, second):
            job = await until_status(db, job_id, "completed")
            assert (job["retry_count"], job.get("crashes")) == ("0", None)
        assert db.smembers("workers:active") == {"m1-worker-t-0"}
        assert db.exists("worker:m1-worker-t-0", "worker:m1-worker-t-0:heartbeat") == 2
    told = [m["worker_id"] for _, m in ear.heard("worker:events") if m["type"] == "worker_disconnected"]
    assert told == ["m1-worker-t-0"]  # by the one that stayed, at its end


async def test_machines_of_one_id_with_different_slots_are_no_rivals(valkey: str, db: Any) -> None:
    one, two = Play(), Play()
    async with open_machine(valkey, {"t": one}), open_machine(valkey, {"u": two}):
        await trio.sleep(2)
        one.finish.set()
        two.finish.set()
        await until_status(db, submit(db, "t"), "completed")
        await until_status(db, submit(db, "u"), "completed")


async def test_a_machine_that_starts_while_the_one_before_drains_is_no_rival(valkey: str, db: Any) -> None:
    old, new = Play(), Play()
    async with open_machine(valkey, {"t": old}, slots=1) as draining:
        job_id = submit(db, "t")
        await old.until_begun()
        draining.shutdown.stop("deploy")
        (process,) = db.keys("emp:process:*")
        await eventually(lambda: db.hget(process, "leaving") == "1")
        async with open_machine(valkey, {"t": new}, slots=1):
            second = submit(db, "t")
            await new.until_begun()
            await trio.sleep(1.5)
            old.finish.set()
            assert (await until_status(db, job_id, "completed"))["attempt"] == "1"
            await eventually(lambda: len(db.keys("emp:process:*")) == 1)
            assert db.smembers("workers:active") == {"m1-worker-t-0"}
            assert db.exists("worker:m1-worker-t-0:heartbeat")
            new.finish.set()
            assert (await until_status(db, second, "completed"))["attempt"] == "1"


# -- as processes


WORDS = ("--workers", "mock:2", "--machine-id", "box")


async def test_the_newer_of_two_processes_leaves_with_a_clear_error(valkey: str, db: Any) -> None:
    async with open_worker(valkey, *WORDS, EMP_TRIO_LEASE_SECONDS="6") as older:
        running = [submit(db, "mock", {"delay_ms": 9000}) for _ in range(2)]
        for job_id in running:
            await until_status(db, job_id, "in_progress")
        async with open_worker(valkey, *WORDS, EMP_TRIO_LEASE_SECONDS="6") as newer:
            third = submit(db, "mock", {"delay_ms": 9000})
            await until_status(db, third, "in_progress")
            assert await newer.code() == 2
            assert "the machine id 'box' is in use twice" in newer.err
            assert "--take-over" in newer.err
            assert "Traceback" not in newer.err
        for job_id in (*running, third):
            job = await until_status(db, job_id, "completed", limit=60)
            assert (job["retry_count"], job.get("crashes")) == ("0", None)
        assert older.process.returncode is None
        assert db.scard("workers:active") == 2


async def test_with_take_over_the_older_one_leaves(valkey: str, db: Any) -> None:
    async with open_worker(valkey, *WORDS, EMP_TRIO_LEASE_SECONDS="6") as older:
        running = submit(db, "mock", {"delay_ms": 3000})
        await until_status(db, running, "in_progress")
        async with open_worker(valkey, *WORDS, "--take-over", EMP_TRIO_LEASE_SECONDS="6") as newer:
            assert await older.code() == 2
            assert "was started with --take-over" in older.err
            job = await until_status(db, running, "completed", limit=60)
            assert (job["retry_count"], job.get("crashes")) == ("0", None)
            await eventually(lambda: db.exists("worker:box-worker-mock-0:heartbeat", "worker:box-worker-mock-0") == 2)
            assert db.scard("workers:active") == 2
            assert newer.process.returncode is None


async def test_processes_of_one_container_image_with_one_host_name(valkey: str, db: Any) -> None:
    """Nobody named them: both have the host's name."""
    async with (
        open_worker(valkey, "--workers", "mock:1", EMP_TRIO_LEASE_SECONDS="6"),
        open_worker(valkey, "--workers", "mock:1", EMP_TRIO_LEASE_SECONDS="6") as second,
    ):
        assert await second.code() == 2
        assert "host name" in second.err


async def test_processes_of_one_worker_id_on_different_machines(valkey: str, db: Any) -> None:
    env = {"WORKER_ID": "w-7", "CONNECTORS": "mock", "EMP_TRIO_LEASE_SECONDS": "6"}
    async with open_worker(valkey, MACHINE_ID="a", **env), open_worker(valkey, MACHINE_ID="b", **env) as second:
        assert await second.code() == 2
        assert "w-7" in second.err


async def test_processes_of_one_machine_with_a_worker_id_each(valkey: str, db: Any) -> None:
    """As the fleet's process managers start them."""
    env = {"MACHINE_ID": "box", "CONNECTORS": "mock", "EMP_TRIO_LEASE_SECONDS": "0.9"}
    async with open_worker(valkey, WORKER_ID="w-1", **env) as one, open_worker(valkey, WORKER_ID="w-2", **env) as two:
        await trio.sleep(3)
        assert one.process.returncode is None
        assert two.process.returncode is None
        assert db.smembers("workers:active") == {"w-1", "w-2"}


async def test_a_restart_after_a_kill_is_neither_refused_nor_delayed(valkey: str, db: Any) -> None:
    """The heartbeat of the killed process is there for a minute and looks alive."""
    for life in range(3):
        async with open_worker(valkey, *WORDS, EMP_TRIO_LEASE_SECONDS="1.5") as worker:
            if life:
                assert db.ttl("worker:box-worker-mock-0:heartbeat") > 30
            job_id = submit(db, "mock", {"delay_ms": 10})
            await until_status(db, job_id, "completed")
            await trio.sleep(3)  # in which it would have noticed the other one
            assert worker.process.returncode is None
            assert worker.events("machine.id_shared") == []
            worker.process.kill()
            await worker.process.wait()


async def test_a_restart_after_an_orderly_stop(valkey: str, db: Any) -> None:
    for _ in range(2):
        async with open_worker(valkey, *WORDS, EMP_TRIO_LEASE_SECONDS="0.9") as worker:
            await trio.sleep(1)
            worker.signal(signal.SIGTERM)
            assert await worker.code() == 0
    assert db.keys("emp:*") == []


@pytest.mark.parametrize("words", [(), ("--take-over",)])
async def test_a_process_that_was_stopped_for_longer_than_a_lease_leaves_when_it_wakes(
    valkey: str, db: Any, words: tuple[str, ...]
) -> None:
    """Also where it had taken over itself: that counts at its start."""
    async with open_worker(valkey, *WORDS, *words, EMP_TRIO_LEASE_SECONDS="3") as stopped:
        job_id = submit(db, "mock", {"delay_ms": 60_000})
        await until_status(db, job_id, "in_progress")
        stopped.signal(signal.SIGSTOP)
        async with open_worker(valkey, *WORDS, EMP_TRIO_LEASE_SECONDS="3") as newer:
            await trio.sleep(5)
            stopped.signal(signal.SIGCONT)
            assert await stopped.code() == 2
            assert newer.process.returncode is None
            done = submit(db, "mock", {"delay_ms": 1})
            await until_status(db, done, "completed")

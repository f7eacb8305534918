"""What a keeper does and when: by values, without a thread, a server or a clock."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.queue.keeping import Duty, KeepSettings, Pace, first_pace, look, not_done
from emp_trio.queue.lease_table import LeaseTable, View
from emp_trio.queue.worker_queue import LeaseRef

KEEP = KeepSettings(lease=15.0, renew_every=5.0, alive_every=5.0, standstill=30.0)
A, B = LeaseRef("a", "x/1"), LeaseRef("b", "x/2")


def view(loop_at: float, *held: LeaseRef, **more: object) -> View:
    return View(held=held, loop_at=loop_at, **more)  # type: ignore[arg-type]


def run(until: float, *, moves_until: float, begin: float = 100.0) -> list[tuple[float, Duty]]:
    """A keeper that wakes when it wants to, beside a loop that shows a sign each second until it stands."""
    pace, now, done = first_pace(begin), begin, []
    while now <= until:
        pace, duty = look(pace, view(min(float(int(now)), moves_until), A), now, KEEP)
        done.append((now, duty))
        assert pace.wake >= now
        now = max(pace.wake, now + 0.001)
    return done


def test_everything_is_due_at_the_beginning_and_then_every_five_seconds() -> None:
    done = run(130.0, moves_until=1000)
    renewals = [at for at, duty in done if duty.renew == (A,)]
    assert renewals == [100.0, 105.0, 110.0, 115.0, 120.0, 125.0, 130.0]
    assert [at for at, duty in done if duty.alive] == renewals
    assert {duty.loop for _, duty in done} == {""}


def test_a_loop_that_stands_still_is_named_then_given_up() -> None:
    done = run(200.0, moves_until=107.0)
    said = [(duty.loop, at) for at, duty in done if duty.loop]
    assert [what for what, _ in said] == ["still", "stopped"]
    assert 113 < said[0][1] <= 118.1
    assert 137 < said[1][1] < 138
    assert max(at for at, duty in done if duty.renew or duty.alive) <= 137.1


def test_it_goes_on_as_soon_as_the_loop_moves_again() -> None:
    pace = Pace(looked=150.0, wake=150.25, renew_at=137.0, alive_at=137.0, still=43.0, loop_at=107.0)
    pace, duty = look(pace, view(150.1, A), 150.25, KEEP)
    assert duty == Duty(renew=(A,), claims=(), alive=True, loop="moves")
    assert pace.still == pytest.approx(0.15)


@pytest.mark.parametrize("away", [16.0, 40.0, 3600.0])
def test_a_process_that_was_stopped_is_not_a_loop_that_stands_still(away: float) -> None:
    """Nothing ran, the keeper neither: the first thing after that is to renew what can still be had."""
    pace, _ = look(first_pace(100.0), view(100.0, A), 100.0, KEEP)
    pace, duty = look(pace, view(100.0, A), 100.0 + away, KEEP)
    assert duty == Duty(renew=(A,), claims=(), alive=True, loop="")
    assert pace.still <= 6.0


def test_somebody_who_asks_is_answered_now() -> None:
    pace, _ = look(first_pace(100.0), view(100.0), 100.0, KEEP)
    pace, duty = look(pace, view(101.0, A, B, asked=True), 101.0, KEEP)
    assert duty == Duty(renew=(A, B), claims=(), alive=False, loop="")
    assert pace.renew_at == 106.0
    _, duty = look(pace, view(101.5, introduce=True), 101.5, KEEP)
    assert duty.alive


def test_suspects_get_a_close_look() -> None:
    pace, _ = look(first_pace(100.0), view(100.0, suspects=("n",)), 100.0, KEEP)
    assert pace.alive_at == 101.0
    pace, duty = look(pace, view(101.0, suspects=("n",)), 101.0, KEEP)
    assert duty.alive
    assert not duty.renew
    pace, _ = look(pace, view(102.0), 102.0, KEEP)
    assert pace.alive_at == 107.0


def test_what_redis_did_not_take_is_due_soon() -> None:
    pace, _ = look(first_pace(100.0), view(100.0), 100.0, KEEP)
    again = not_done(pace, 102.0)
    assert (again.renew_at, again.alive_at, again.wake) == (102.25, 102.25, 102.25)
    assert not_done(again, 103.0) == again


@given(
    steps=st.lists(st.tuples(st.floats(0, 60), st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=60)
)
def test_whatever_happens(steps: list[tuple[float, bool, bool, bool]]) -> None:
    """While the loop moves, everything is kept; a loop that is given up has stood still for at least that long."""
    now = loop_at = 100.0
    pace = first_pace(now)
    for passed, moved, asked, suspected in steps:
        now += passed
        loop_at = now if moved else loop_at
        before = pace
        seen = view(loop_at, A, asked=asked, suspects=("n",) if suspected else ())
        pace, duty = look(pace, seen, now, KEEP)
        assert 0 <= pace.still <= now - loop_at + 1e-6
        stopped = pace.still > KEEP.standstill
        assert now <= pace.wake <= now + max(KEEP.renew_every, 1.0)
        if stopped:
            assert duty.renew == ()
            assert not duty.alive
        else:
            assert bool(duty.renew) == (asked or now >= before.renew_at)
            assert pace.renew_at <= now + KEEP.renew_every
            assert pace.alive_at <= now + KEEP.alive_every
        assert (duty.loop == "stopped") == (stopped and before.still <= KEEP.standstill)


def test_a_lease_that_was_dropped_while_it_was_renewed_does_not_come_back() -> None:
    table = LeaseTable(0.0)
    table.hold(A, 15.0)
    held = table.view().held
    table.drop(A)
    table.renewed(held, 20.0)
    assert table.view().held == ()
    assert table.until(A) == float("-inf")


def test_a_renewal_never_shortens_a_lease() -> None:
    table = LeaseTable(0.0)
    table.hold(A, 30.0)
    table.renewed([A], 20.0)
    assert table.until(A) == 30.0


def test_a_claim_whose_reply_has_not_been_read_is_kept_until_it_is() -> None:
    table = LeaseTable(0.0)
    table.claiming("n", [("w1", "n-0"), ("w2", "n-1")])
    seen = table.view().claims
    assert seen == (("w1", "n-0"), ("w2", "n-1"))
    table.claiming("m", [("w3", "m-0")])
    table.held_claims(seen, 20.0)
    assert table.claimed("m") == float("-inf")
    assert table.claimed("n") == 20.0
    table.held_claims(seen, 30.0)
    assert table.claimed("n") == float("-inf")
    assert table.view().claims == ()


@pytest.mark.parametrize(
    "call",
    [
        LeaseTable.ask,
        LeaseTable.leave,
        LeaseTable.close,
        lambda table: table.introduce(["w"]),
        lambda table: table.suspect(["n"]),
        lambda table: table.hold(A, 0.5),
    ],
)
def test_news_end_a_wait_that_has_begun_and_one_that_begins(call: object) -> None:
    for late in (False, True):
        table = LeaseTable(0.0)
        table.view()
        waiter = threading.Thread(target=table.wait, args=(3600.0, 60.0))
        if late:
            waiter.start()
            while not table._changed._waiters:  # type: ignore[attr-defined]
                time.sleep(0.001)
        call(table)  # type: ignore[operator]
        if not late:
            waiter.start()
        waiter.join(30)
        assert not waiter.is_alive()


def test_many_threads_at_the_table_lose_nothing() -> None:
    table, stop = LeaseTable(0.0), threading.Event()

    def keep() -> None:
        while not stop.is_set():
            table.renewed(table.view().held, 99.0)

    keeper = threading.Thread(target=keep)
    keeper.start()
    try:
        for number in range(3000):
            lease = LeaseRef(str(number), "t")
            table.hold(lease, 15.0)
            assert table.until(lease) in (15.0, 99.0)
            if number % 2:
                table.drop(lease)
    finally:
        stop.set()
        keeper.join()
    assert len(table.view().held) == 1500

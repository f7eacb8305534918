"""What a worker type claims next: by table and by property."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.worker.claim_policy import Batch, ClaimPolicy


def answered(policy: ClaimPolicy, batch: Batch | None, jobs: int, next_rank: int | None = None) -> float:
    """A claim that brought so many jobs within 0.1 s."""
    assert batch is not None
    pause = policy.answered(batch, jobs=jobs, next_rank=next_rank, seconds=0.1)
    policy.ended()
    return pause


def with_backlog(slots: int) -> ClaimPolicy:
    """A policy whose last claim got a job for each of its slots."""
    policy = ClaimPolicy(slots)
    batch = policy.next_batch(slots)
    assert batch is not None
    answered(policy, batch, batch.size)
    return policy


@pytest.mark.parametrize(
    ("slots", "free", "size"),
    [(1, 1, 1), (4, 4, 4), (100, 100, 8), (100, 3, 3), (100, 0, None)],
)
def test_a_first_look_is_for_a_few_slots_and_alone(slots: int, free: int, size: int | None) -> None:
    policy = ClaimPolicy(slots)
    batch = policy.next_batch(free)
    assert (batch and batch.size) == size
    if batch is not None:
        assert not batch.concurrent
        assert policy.next_batch(free - batch.size) is None, "one claim at a time"


@pytest.mark.parametrize(("slots", "sizes"), [(100, [50, 50]), (101, [51, 50]), (2, [1, 1]), (1, [1])])
def test_with_a_backlog_two_claims_are_under_way_each_for_its_share(slots: int, sizes: list[int]) -> None:
    policy, free, found = with_backlog(slots), slots, []
    while (batch := policy.next_batch(free)) is not None:
        assert batch.concurrent
        found.append(batch.size)
        free -= batch.size
    assert found == sizes


@pytest.mark.parametrize(
    ("jobs", "next_rank", "backlog", "queue_empty", "rank", "pauses"),
    [
        (8, None, True, False, 0, False),  # a job for each slot: there may be more
        (8, 40, True, False, 0, False),  # also where the queue goes on: from its beginning again
        (3, None, False, True, 0, False),  # the whole queue was seen, and slots are free
        (0, None, False, True, 0, False),
        (3, 40, False, False, 40, False),  # it was seen as far as one call looks: go on there
        (0, 40, False, False, 40, True),  # jobs for others: leave Redis some time
    ],
)
def test_what_an_answer_leads_to(
    jobs: int, next_rank: int | None, backlog: bool, queue_empty: bool, rank: int, pauses: bool
) -> None:
    policy = ClaimPolicy(20)
    pause = answered(policy, policy.next_batch(20), jobs, next_rank)
    assert (policy.backlog, policy.queue_empty) == (backlog, queue_empty)
    assert pause == (pytest.approx(0.9) if pauses else 0.0)
    batch = policy.next_batch(20)
    assert batch is not None
    assert batch.rank == rank


def test_a_change_while_a_claim_is_under_way_is_not_missed() -> None:
    policy = ClaimPolicy(4)
    batch = policy.next_batch(4)
    policy.notify()
    answered(policy, batch, 0)
    assert not policy.queue_empty
    answered(policy, policy.next_batch(4), 0)
    assert policy.queue_empty
    policy.notify()
    assert not policy.queue_empty


def test_a_claim_that_failed_leaves_room_for_the_next() -> None:
    policy = ClaimPolicy(4)
    assert policy.next_batch(4) is not None
    assert policy.next_batch(4) is None
    policy.ended()
    assert policy.next_batch(4) is not None


def test_machines_that_lose_races_draw_apart() -> None:
    policy, spreads = ClaimPolicy(4), []
    for _ in range(8):
        policy.notify()
        spreads.append(policy.woken())
        answered(policy, policy.next_batch(4), 0)
    assert spreads == [0.0, 0.0, 0.002, 0.004, 0.008, 0.008, 0.008, 0.008]
    answered(policy, policy.next_batch(4), 1)
    policy.notify()
    assert policy.woken() == 0.0, "who gets a job is in the race again"


def test_a_look_of_its_own_accord_is_no_race() -> None:
    policy = ClaimPolicy(4)
    for changed in (True, True, False, False, False):
        if changed:
            policy.notify()
        policy.woken()
        answered(policy, policy.next_batch(4), 0)
    assert policy.woken() == 0.0
    policy.notify()
    assert policy.woken() == 0.002, "two races were lost, and no more"


@given(data=st.data(), slots=st.integers(1, 40))
def test_slots_are_never_claimed_for_twice_and_never_forgotten(data: st.DataObject, slots: int) -> None:
    policy, free, under_way = ClaimPolicy(slots), slots, list[Batch]()
    for _ in range(data.draw(st.integers(0, 40))):
        if under_way and data.draw(st.booleans()):
            batch = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
            jobs = data.draw(st.integers(0, batch.size))
            assert answered(policy, batch, jobs, data.draw(st.none() | st.integers(1, 99))) >= 0.0
            free += batch.size  # the jobs end at once
        elif (next_batch := policy.next_batch(free)) is not None:
            assert 0 < next_batch.size <= free
            free -= next_batch.size
            under_way.append(next_batch)
        assert len(under_way) <= 2
        assert free + sum(batch.size for batch in under_way) == slots
    while under_way:
        answered(policy, under_way.pop(), 0)
    assert policy.next_batch(slots) is not None

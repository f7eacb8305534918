"""The state machine of one prompt: what concludes it, when it is looked for, how far it is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import ServiceError
from emp_trio.services.comfyui.history import Entry, read_entry, read_queue
from emp_trio.services.comfyui.messages import (
    Cached,
    Ended,
    Event,
    Executed,
    Executing,
    Failed,
    Interrupted,
    NodeState,
    NodeStates,
    Started,
    Step,
    Succeeded,
    decode,
    prompt_of,
)
from emp_trio.services.comfyui.tracker import FollowSettings, Tracker
from tests.services.comfyui.recordings import NAMES, histories, messages, recording

DONE = Entry(outputs={})


def tracker(nodes: str = "1 2 3 4", **settings: Any) -> Tracker:
    return Tracker("p", nodes.split(), FollowSettings(**settings), now=0.0)


def failed(kind: str = "ValueError") -> Failed:
    return Failed(prompt_id="p", node_id="1", node_type="X", exception_type=kind, exception_message="no")


def prompts() -> list[Any]:
    """Every prompt of the recordings, as (its messages, its graph's nodes, its history entry or None)."""
    found = []
    for name in NAMES:
        graphs = {
            record["body"]["prompt_id"]: record["body"]["prompt"]
            for record in recording(name)
            if record.get("path") == "/prompt" and record["dir"] == "out" and "prompt_id" in (record["body"] or {})
        }
        entries = dict(histories(name))
        heard: dict[str, list[Event]] = {}
        for _, message in messages(name):
            event = decode(message)
            heard.setdefault(prompt_of(event) or "", []).append(event)
        found += [
            pytest.param(prompt_id, heard[prompt_id], list(graph), entries, id=f"{name}-{prompt_id[:8]}")
            for prompt_id, graph in graphs.items()
            if prompt_id in heard
        ]
    return found


@pytest.mark.parametrize(("prompt_id", "heard", "nodes", "entries"), prompts())
def test_recorded_prompts_are_followed_to_their_end(
    prompt_id: str, heard: list[Event], nodes: list[str], entries: dict[str, Any]
) -> None:
    follower = Tracker(prompt_id, nodes, FollowSettings(poll_soon=1000.0), now=0.0)
    before = 0.0
    for number, event in enumerate(heard):
        follower.hear(event, number / 10)
        assert before <= follower.fraction < 1
        before = follower.fraction
        assert not follower.concluded  # the history decides
    assert isinstance(heard[-1], Ended)
    assert follower.next_look == (len(heard) - 1) / 10
    succeeded = any(isinstance(event, Succeeded) for event in heard)
    if not any(isinstance(event, Failed | Interrupted) for event in heard):
        assert succeeded
    if prompt_id in entries:
        entry = read_entry(entries, prompt_id)
        assert entry is not None
        follower.looked(None, entry, 100.0)
        assert follower.concluded
        assert (entry.error is None) is succeeded
        assert entry.interrupted is any(isinstance(event, Interrupted) for event in heard)


def test_the_end_marker_asks_for_the_history_at_once_and_other_ends_after_a_while() -> None:
    """4.3: after execution_success the history may still be empty; after the end marker it is not."""
    follower = tracker(marker_wait=1.0, poll_interval=60.0, poll_soon=50.0)
    follower.hear(Succeeded(prompt_id="p"), 10.0)
    assert follower.next_look == 11.0
    follower.hear(Ended(prompt_id="p"), 10.2)
    assert follower.next_look == 10.2


def test_an_empty_history_after_the_end_is_looked_at_again_before_the_prompt_counts_as_lost() -> None:
    """4.3: in 60 quick prompts one look-up right after the end came back empty."""
    follower = tracker(history_wait=5.0)
    follower.looked("running", None, 9.9)
    follower.hear(Ended(prompt_id="p"), 10.0)
    looks = []
    while not follower.concluded:
        now = follower.next_look
        looks.append(round(now - 10.0, 2))
        follower.looked("absent", None, now)
    assert looks[:4] == [0.0, 0.05, 0.15, 0.35]
    assert looks[-1] >= 5.0
    assert follower.failure is not None
    assert (follower.failure.code, follower.failure.retry) == ("lost", True)
    late = tracker()
    late.hear(Ended(prompt_id="p"), 10.0)
    late.looked("absent", None, 10.0)
    late.looked("absent", DONE, 10.1)
    assert late.entry is DONE


def test_messages_alone_conclude_nothing() -> None:
    """4.3, 8: the history decides."""
    follower = tracker()
    for event in (Started(prompt_id="p"), Executed(prompt_id="p", node="4"), Succeeded(prompt_id="p"), failed()):
        follower.hear(event, 1.0)
    follower.hear(Ended(prompt_id="p"), 2.0)
    assert not follower.concluded


def test_a_blocked_branch_does_not_end_the_prompt() -> None:
    """3.1: an execution_error of type ExecutionBlocked may be followed by success."""
    follower = tracker()
    follower.hear(failed("ExecutionBlocked"), 1.0)
    for now in (2.0, 8.0, 20.0):
        follower.looked("running", None, now)
        assert not follower.concluded
    follower.looked(None, DONE, 21.0)
    assert follower.entry is DONE


def test_a_prompt_that_is_nowhere_at_two_looks_is_lost() -> None:
    """4.5, 8: after a restart queue and history are empty."""
    follower = tracker(poll_soon=1.0)
    follower.looked("pending", None, 1.0)
    follower.looked("absent", None, 2.0)
    assert not follower.concluded
    follower.looked("absent", None, 3.5)
    assert follower.failure is not None
    assert follower.failure.retry
    assert follower.failure.maybe_started


def test_a_prompt_that_comes_back_between_two_looks_is_not_lost() -> None:
    follower = tracker()
    for now in range(1, 20, 2):
        follower.looked("absent", None, float(now))
        follower.looked("running", None, now + 1.0)
    assert not follower.concluded


def test_as_long_as_the_socket_talks_the_queue_is_left_alone() -> None:
    """8: the queue carries whole graphs."""
    follower = tracker(poll_interval=5.0)
    assert follower.wants_queue
    follower.hear(Step(prompt_id="p", node="1", value=1, max=2), 1.0)
    assert not follower.wants_queue
    follower.looked(None, None, 2.0)
    assert follower.wants_queue


def test_a_lost_socket_is_made_up_for_by_looks() -> None:
    """4.4: whatever happened while there was no socket, nobody tells."""
    follower = tracker(poll_soon=1.0, poll_interval=5.0)
    for now in range(1, 60, 5):
        follower.hear(Step(prompt_id="p", node="1", value=1, max=2), float(now))
        follower.looked(None, None, float(now))
    assert follower.next_look == 56.0 + 5.0
    follower.unheard(57.0)
    assert follower.next_look == 57.0
    assert follower.wants_queue
    follower.looked("running", None, 57.0)
    assert follower.next_look == 58.0


def unreachable() -> ServiceError:
    return ServiceError("refused", type="network_error", reason="connection_failed")


def test_a_dead_server_ends_the_prompt_after_seconds_and_a_hiccup_does_not() -> None:
    follower = tracker(outage_timeout=15.0)
    follower.looked("running", None, 100.0)
    follower.look_failed(unreachable(), 110.0)
    assert not follower.concluded
    follower.looked("running", None, 111.0)
    follower.look_failed(unreachable(), 125.0)
    assert not follower.concluded
    follower.look_failed(unreachable(), 126.0)
    assert follower.failure is not None
    assert (follower.failure.type, follower.failure.retry, follower.failure.maybe_started) == (
        "network_error",
        True,
        True,
    )


def test_a_busy_server_is_given_more_time_than_one_that_is_gone() -> None:
    """3: a long computation can hold up answers by many seconds."""
    follower = tracker(outage_timeout=15.0, busy_timeout=120.0)
    follower.look_failed(ServiceError("slow", type="timeout", reason="network_timeout"), 30.0)
    assert not follower.concluded
    follower.look_failed(ServiceError("slow", type="timeout", reason="network_timeout"), 121.0)
    assert follower.concluded


def test_refused_credentials_end_it_at_once() -> None:
    """7: 401 is a configuration error and not repeated."""
    follower = tracker()
    follower.look_failed(ServiceError("no", status=401), 1.0)
    assert follower.failure is not None


def test_time_in_the_queue_and_silence_while_running_have_limits_of_their_own() -> None:
    """7, 8: queued and running times are kept apart."""
    queued = tracker(queue_timeout=60.0, silence_timeout=10.0)
    queued.looked("pending", None, 1.0)
    queued.looked("pending", None, 59.0)
    assert not queued.concluded
    queued.looked("pending", None, 60.0)
    assert queued.failure is not None
    assert queued.failure.reason == "queue_timeout"
    running = tracker(queue_timeout=60.0, silence_timeout=10.0)
    running.looked("running", None, 55.0)
    running.hear(Step(prompt_id="p", node="1", value=1, max=9), 64.0)
    running.looked("running", None, 73.0)
    assert not running.concluded
    running.looked("running", None, 74.0)
    assert running.failure is not None
    assert running.failure.reason == "processing_timeout"


def test_a_pause_of_minutes_between_two_messages_is_no_silence() -> None:
    """4.1: loading a model or hashing an input says nothing, and nobody should have to set a limit for it."""
    follower = tracker()
    follower.hear(Started(prompt_id="p"), 1.0)
    for now in range(5, 600, 5):
        follower.looked("running", None, float(now))
    assert not follower.concluded


def test_silence_means_nothing_where_the_messages_go_to_a_socket_that_is_gone() -> None:
    """4.4: after a reconnect under a new id nothing more is heard of a prompt that runs on."""
    follower = tracker(silence_timeout=10.0)
    follower.hear(Started(prompt_id="p"), 1.0)
    follower.unheard(2.0)
    for now in range(3, 1000, 5):
        follower.looked("running", None, float(now))
    assert not follower.concluded


def fractions(nodes: str, *events: Event) -> list[float]:
    follower = tracker(nodes)
    seen = []
    for event in events:
        follower.hear(event, 1.0)
        seen.append(round(follower.fraction, 3))
    return seen


def executing(node: str) -> Executing:
    return Executing(prompt_id="p", node=node, display_node=node)


def states(**nodes: tuple[str, float, float]) -> NodeStates:
    return NodeStates(
        prompt_id="p",
        nodes={name.lstrip("n"): NodeState(state=s, value=v, max=m) for name, (s, v, m) in nodes.items()},
    )


def test_progress_is_the_share_of_the_nodes_that_run() -> None:
    assert fractions(
        "1 2 3 4",
        Cached(prompt_id="p", nodes=("1", "2")),
        executing("3"),
        Step(prompt_id="p", node="3", value=5, max=10),
        executing("4"),
        Step(prompt_id="p", node="4", value=1, max=2),
    ) == [0, 0, 0.25, 0.5, 0.75]


def test_progress_of_several_nodes_at_once() -> None:
    """3.1: with asynchronous nodes executing is not the current node; progress_state is right."""
    assert fractions(
        "1 2",
        states(n1=("running", 1, 2)),
        executing("2"),
        states(n1=("running", 1, 2), n2=("running", 1, 4)),
        states(n1=("running", 1, 2), n2=("finished", 4, 4)),
    ) == [0.25, 0.25, 0.375, 0.75]


def test_progress_never_goes_back_and_expanded_nodes_do_not_count() -> None:
    assert fractions(
        "1 2",
        Step(prompt_id="p", node="1", value=9, max=10),
        Step(prompt_id="p", node="1", value=1, max=10),
        states(**{"n1.0.1": ("finished", 1, 1)}),
        states(**{"n1.0.1": ("finished", 1, 1), "n1.0.2": ("running", 1, 1)}),
        Step(prompt_id="p", node="1", value=0, max=0),
    ) == [0.45, 0.45, 0.45, 0.45, 0.45]


def test_a_fully_cached_prompt_is_known_as_such() -> None:
    """4.8: it sends no executing for any node."""
    follower = tracker("1 2")
    follower.hear(Cached(prompt_id="p", nodes=("1", "2")), 1.0)
    assert follower.cached
    assert 0.99 < follower.fraction < 1


_events = st.lists(
    st.one_of(
        st.builds(Cached, prompt_id=st.just("p"), nodes=st.lists(st.sampled_from("1234"), max_size=4).map(tuple)),
        st.builds(Executing, prompt_id=st.just("p"), node=st.sampled_from("12345")),
        st.builds(
            Step,
            prompt_id=st.just("p"),
            node=st.sampled_from("12345"),
            value=st.floats(allow_nan=False),
            max=st.floats(allow_nan=False),
        ),
        st.builds(Executed, prompt_id=st.just("p"), node=st.sampled_from("12345")),
        st.builds(Succeeded, prompt_id=st.just("p")),
        st.builds(failed),
    )
)


@given(_events)
def test_whatever_is_heard_progress_rises_and_nothing_is_concluded(events: list[Event]) -> None:
    follower = tracker()
    before = 0.0
    for event in events:
        follower.hear(event, 1.0)
        assert before <= follower.fraction < 1
        before = follower.fraction
    assert not follower.concluded


def test_the_queue_is_read_in_its_own_order() -> None:
    """2.2: pending prompts come in heap order."""
    queue = {"queue_running": [[4, "r", {}]], "queue_pending": [[7, "c"], [-8, "a"], [6.5, "b"], "junk", []]}
    look = read_queue(queue)
    assert look.running == ("r",)
    assert look.pending == ("a", "b", "c")
    assert [look.state_of(name) for name in "rax"] == ["running", "pending", "absent"]
    assert read_queue(None).running == ()


@pytest.mark.parametrize(
    ("entry", "retry", "interrupted"),
    [
        ({"outputs": {}, "status": None}, None, False),
        ({"outputs": None, "status": {"status_str": "success"}}, None, False),
        ({}, None, False),
        ({"status": {"status_str": "error", "messages": []}}, False, False),
        ({"status": {"status_str": "error", "messages": [["execution_interrupted", {"prompt_id": "p"}]]}}, True, True),
        ({"status": {"status_str": "error", "messages": [["execution_error", {"prompt_id": "p"}]]}}, False, False),
        ({"status": {"status_str": "success", "messages": [["execution_error", {"prompt_id": "p"}]]}}, None, False),
        ({"status": {"status_str": "error", "messages": "junk"}}, False, False),
    ],
)
def test_how_a_prompt_ended_is_told_by_its_last_message(
    entry: dict[str, Any], retry: bool | None, interrupted: bool
) -> None:
    """2.2: an interrupted prompt has the status of a failed one."""
    found = read_entry({"p": entry}, "p")
    assert found is not None
    assert found.interrupted is interrupted
    assert (found.error.retry if found.error is not None else None) is retry


def test_an_empty_history_is_no_end() -> None:
    for answer in ({}, {"other": {}}, None, []):
        assert read_entry(answer, "p") is None

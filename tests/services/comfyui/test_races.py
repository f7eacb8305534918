"""Order, races and failures between a client and a ComfyUI (ComfyUI reference 4), each as it was seen or reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ServiceError
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.comfyui import FakeComfyUI
from tests.services.comfyui.support import (
    ID,
    bodies,
    disturbed,
    image,
    open_comfyui,
    running,
    runs,
    sleeping,
    waiting,
)
from tests.services.support import job, stored

PATIENT = {"poll_soon": 60.0, "poll_interval": 60.0}  # only the socket can be quick


async def test_events_before_the_answer_are_heard(fake: FakeComfyUI, connector_context: ConnectorContext) -> None:
    """4.2: the whole prompt may be over before the answer to its POST is there."""
    async with open_comfyui(fake, connector_context, follow=PATIENT) as connector:
        fake.behavior.hold_answers = True
        assert (await run_job(connector, job({"workflow": image()}))).success


async def test_the_end_marker_leads_to_the_history_without_a_poll(
    fake: FakeComfyUI, connector_context: ConnectorContext
) -> None:
    """4.3: the end marker is the signal to fetch the history."""
    async with open_comfyui(fake, connector_context, follow=PATIENT) as connector:
        with trio.fail_after(60):
            assert (await run_job(connector, job({"workflow": sleeping(0.1, 2)}))).success
        assert fake.count("GET /queue") == 1  # by the canary


async def test_a_history_that_is_late_is_waited_for(connector: Any, fake: FakeComfyUI) -> None:
    """4.3: success is told before the history entry exists."""
    fake.behavior.empty_histories = 4
    assert (await run_job(connector, job({"workflow": image()}))).success
    assert fake.behavior.empty_histories == 0
    assert runs(fake) == 1


@pytest.mark.parametrize("close_frame", [True, False])
async def test_a_prompt_that_ends_while_the_socket_is_down_is_found(
    connector: Any, fake: FakeComfyUI, close_frame: bool
) -> None:
    """4.4: nothing is replayed; a client that waits for events waits for ever."""

    async def disturb() -> None:
        await running(fake)
        fake.behavior.refuse_sockets = True
        await fake.drop_sockets(close_frame=close_frame)

    assert (await disturbed(connector, job({"workflow": sleeping(0.3, 3)}), disturb)).success
    assert runs(fake) == 1


async def test_a_prompt_whose_end_was_not_told_is_looked_for_when_the_socket_goes(
    fake: FakeComfyUI, connector_context: ConnectorContext
) -> None:
    """4.4: what a lost socket has not said, the next one does not say either."""
    async with open_comfyui(fake, connector_context, follow=PATIENT) as connector:
        fake.behavior.mute = True

        async def disturb() -> None:
            await fake.until(lambda: ID in fake.engine.history)
            await fake.drop_sockets()

        with trio.fail_after(60):
            assert (await disturbed(connector, job({"workflow": image()}), disturb)).success


async def test_every_connection_has_an_id_of_its_own(connector: Any, fake: FakeComfyUI) -> None:
    """4.4: under the same id, the end of a half-dead old socket silences the new one for good."""
    for opened in (2, 3, 4):
        await fake.drop_sockets()
        await fake.until(lambda opened=opened: fake.process.opened == opened)  # type: ignore[misc]
    targets = [request.target for request in fake.of("GET /ws")]
    assert len(set(targets)) == len(targets) >= 4
    await fake.until(lambda: connector.server.client_id in fake.process.sockets)
    assert (await run_job(connector, job({"workflow": image()}))).success


async def test_reconnects_are_not_made_in_a_tight_loop(fake: FakeComfyUI, connector_context: ConnectorContext) -> None:
    """7, 11: refused sockets once ate all memory of another client."""
    fake.behavior.refuse_sockets = True
    async with open_comfyui(fake, connector_context, quiet=False, reconnect_delay=0.2, reconnect_cap=60.0):
        await fake.until(lambda: fake.count("GET /ws") == 2)
        with trio.move_on_after(0.3):
            await fake.until(lambda: fake.count("GET /ws") > 4)
        assert fake.count("GET /ws") <= 4


async def test_reconnects_are_made_further_and_further_apart_at_random_and_for_ever(
    fake: FakeComfyUI, connector_context: ConnectorContext
) -> None:
    """8: exponential back-off with jitter, without a limit, and from the beginning after each success."""

    def pauses() -> list[float]:
        return [line["reconnect_in"] for line in logs if line["event"] == "socket.lost"]

    fake.behavior.refuse_sockets = True
    with capture_logs() as logs:
        async with open_comfyui(
            fake, connector_context, quiet=False, reconnect_delay=0.04, reconnect_cap=0.16
        ) as connector:
            await fake.until(lambda: fake.count("GET /ws") > 12)
            fake.behavior.refuse_sockets = False
            await fake.until(lambda: connector.server.client_id in fake.process.sockets)
            refused = pauses()
            await fake.drop_sockets()
            await fake.until(lambda: fake.process.opened == 2)
    assert refused[0] <= 0.04
    assert all(0.08 <= pause <= 0.16 for pause in refused[2:])
    assert len(set(refused[2:])) > 1
    assert pauses()[len(refused)] <= 0.04


async def test_a_job_needs_no_socket(fake: FakeComfyUI, connector_context: ConnectorContext) -> None:
    """8: the socket makes it fast; not having it must never fail a job."""
    fake.behavior.refuse_sockets = True
    async with open_comfyui(fake, connector_context, quiet=False, follow={"silence_timeout": 0.2}) as connector:
        assert (await run_job(connector, job({"workflow": sleeping(0.6)}))).success
        (body,) = bodies(fake)
        assert body["client_id"]  # 4.9: without one, progress goes to every socket


async def test_an_open_socket_that_says_nothing_is_not_believed(connector: Any, fake: FakeComfyUI) -> None:
    """4.7: 4.4, a proxy, or another client that does not read."""
    fake.behavior.mute = True
    assert (await run_job(connector, job({"workflow": sleeping(0.2, 2)}))).success


async def test_a_restarted_server_has_forgotten_the_prompt(connector: Any, fake: FakeComfyUI) -> None:
    """4.5: neither in the history nor in the queue means lost, and worth another attempt."""

    async def disturb() -> None:
        await running(fake)
        await fake.restart()

    start = trio.current_time()
    with pytest.raises(ServiceError) as caught:
        await disturbed(connector, job({"workflow": sleeping()}), disturb)
    assert (caught.value.code, caught.value.retry) == ("lost", True)
    assert trio.current_time() - start < 5
    assert (await run_job(connector, job({"workflow": image()}, attempt=2))).success


async def test_a_dead_server_ends_its_jobs_with_something_worth_a_retry(connector: Any, fake: FakeComfyUI) -> None:
    """4.5: in seconds, and not at the job's own time limit."""

    async def disturb() -> None:
        await running(fake)
        await fake.kill()

    start = trio.current_time()
    with pytest.raises(ServiceError) as caught:
        await disturbed(connector, job({"workflow": sleeping()}), disturb)
    assert (caught.value.type, caught.value.retry, caught.value.maybe_started) == ("network_error", True, True)
    assert trio.current_time() - start < 5
    assert not (await connector.health()).healthy
    await fake.start()
    assert (await run_job(connector, job({"workflow": image()}, attempt=2))).success
    assert (await connector.health()).healthy


async def test_a_server_that_answers_late_while_it_computes_is_not_taken_for_dead(
    connector: Any, fake: FakeComfyUI
) -> None:
    """3, 9.13: a long computation can hold up answers by many seconds."""
    await fake.drop_sockets()
    fake.behavior.refuse_sockets = True
    fake.inject("GET /queue", delay=0.7, times=2)
    assert (await run_job(connector, job({"workflow": sleeping(0.5, 2)}))).success
    assert runs(fake) == 1


async def test_strangers_and_nonsense_are_passed_over(connector: Any, fake: FakeComfyUI) -> None:
    """4.9, 9.11: on a shared server messages of other prompts arrive, some of them for everybody."""
    context = FakeAttempt()

    async def disturb() -> None:
        await running(fake)
        end = {"prompt_id": "a-stranger", "node": None}
        for message in (
            {"type": "progress", "data": {"value": 9, "max": 10, "node": "1"}},
            {"type": "executing", "data": {"node": "2"}},
            {"type": "executing", "data": end},
            {"type": "execution_error", "data": {"prompt_id": "a-stranger"}},
            {"type": "execution_success", "data": {}},
            {"type": "executing", "data": {"node": None}},
            {"type": "progress", "data": {"value": 9, "max": 10, "node": "1", "prompt_id": "a-stranger"}},
            {"type": "progress", "data": {"value": 9, "max": 10, "node": "1"}},
            {"type": "crystools.monitor", "data": {"cpu": 1}},
            b"\0\0\0\x04\0\0\0\x09{}",
            b"\0\0\0\x63",
            b"",
        ):
            fake.say(message)

    result = await disturbed(connector, job({"workflow": sleeping(0.3, 3)}), disturb, context)
    assert result.success
    # A third of the node, and not nine tenths, though nobody else was named when those were told of no prompt.
    assert any(20 < report.value < 30 for report in context.reports)
    assert fake.process.opened == 1


async def test_what_is_said_of_the_prompt_itself_is_not_believed_without_the_history(
    connector: Any, fake: FakeComfyUI
) -> None:
    """3.1, 8: an execution_error of a blocked branch does not end the prompt; the history decides."""

    async def disturb() -> None:
        await running(fake)
        blocked = {"prompt_id": ID, "node_id": "1", "node_type": "X", "exception_type": "ExecutionBlocked"}
        fake.say({"type": "execution_error", "data": blocked})
        fake.say({"type": "execution_success", "data": {"prompt_id": ID}})
        fake.say({"type": "executing", "data": {"prompt_id": ID, "node": None}})

    assert (await disturbed(connector, job({"workflow": sleeping(1.2, 3)}), disturb)).success
    assert runs(fake) == 1


async def test_a_strangers_queue_before_ours_is_waited_for(connector: Any, fake: FakeComfyUI) -> None:
    """7: a remote instance is often shared."""
    fake.stranger(sleeping(0.3, 2))
    context = FakeAttempt()
    assert (await run_job(connector, job({"workflow": image()}), context)).success
    assert any("queue, 1 before it" in report.message for report in context.reports)


async def test_a_prompt_that_another_client_deletes_is_lost(connector: Any, fake: FakeComfyUI) -> None:
    """2.2: it leaves no trace at all."""
    fake.stranger(sleeping(3600))

    async def disturb() -> None:
        await waiting(fake)
        fake.engine.delete([ID])

    with pytest.raises(ServiceError) as caught:
        await disturbed(connector, job({"workflow": image()}), disturb)
    assert (caught.value.code, caught.value.retry) == ("lost", True)


async def test_a_failed_node_fails_the_job_and_what_it_saved_is_forgotten(connector: Any, fake: FakeComfyUI) -> None:
    """2.2, 8: the history has the whole error; only one that memory may mend is tried again."""
    bad = image() | {"3": {"class_type": "RigRaise", "inputs": {"image": ["1", 0], "message": "deliberate"}}}
    with pytest.raises(ServiceError, match=r"node '3' \(RigRaise\).*deliberate") as caught:
        await run_job(connector, job({"workflow": bad}))
    assert not caught.value.retry
    assert ID not in fake.engine.history
    bad["3"]["inputs"] |= {"kind": "torch.OutOfMemoryError", "salt": 1}
    with pytest.raises(ServiceError) as caught:
        await run_job(connector, job({"workflow": bad}, attempt=2))
    assert (caught.value.reason, caught.value.retry) == ("gpu_memory_full", True)


async def test_an_interrupt_of_somebody_elses_is_no_failure_of_the_job(connector: Any, fake: FakeComfyUI) -> None:
    """2.2: it has the status of a failure; only the last message tells."""

    async def disturb() -> None:
        await running(fake)
        fake.engine.interrupt(None)

    with pytest.raises(ServiceError, match="interrupted") as caught:
        await disturbed(connector, job({"workflow": sleeping(20, 1000)}), disturb)
    assert caught.value.retry


async def test_a_file_that_is_gone_is_made_again_by_the_next_attempt(
    connector: Any, fake: FakeComfyUI, tmp_path: Path
) -> None:
    """4.8: the history lists files that /view does not have any more."""
    fake.behavior.keep_cache = True
    fake.inject("GET /view", 404)
    with pytest.raises(ServiceError, match="gone") as caught:
        await run_job(connector, job({"workflow": image()}))
    assert caught.value.retry
    fake.disk.files.clear()
    assert (await run_job(connector, job({"workflow": image()}, attempt=2))).success
    assert len(stored(tmp_path / "assets")) == 1


async def test_a_download_that_breaks_off_is_taken_up_by_the_next_attempt(
    connector: Any, fake: FakeComfyUI, tmp_path: Path
) -> None:
    fake.inject("GET /view", cut=150)
    with pytest.raises(ServiceError) as caught:
        await run_job(connector, job({"workflow": image()}))
    assert caught.value.retry
    assert stored(tmp_path / "assets") == {}
    assert (await run_job(connector, job({"workflow": image()}, attempt=2))).success
    assert runs(fake) == 1


async def test_the_queue_is_asked_before_the_history(fake: FakeComfyUI, connector_context: ConnectorContext) -> None:
    """8: between the two a prompt goes from queue to history, never back."""
    fake.behavior.refuse_sockets = True
    async with open_comfyui(fake, connector_context, quiet=False) as connector:
        await connector.server.probe.verdict()
        before = len(fake.requests)
        assert (await run_job(connector, job({"workflow": sleeping(0.5, 2)}))).success
    asked = [request.target.split("/")[1] for request in fake.requests[before:] if request.method == "GET"]
    looks = [name for name in asked if name in ("queue", "history")]
    assert len(looks) > 2
    assert looks == ["queue", "history"] * (len(looks) // 2)


async def test_a_job_that_is_busy_elsewhere_does_not_hold_up_the_socket(
    fake: FakeComfyUI, connector_context: ConnectorContext
) -> None:
    """4.7: the server waits for each of its sockets; a client that does not read stops the messages of everybody."""
    saving = trio.Event()

    class Slow:
        def check(self, job: Any) -> None: ...

        async def save(self, *args: Any, **more: Any) -> Any:
            saving.set()
            await trio.sleep_forever()

    slow = ConnectorContext(assets=Slow())
    async with (
        open_comfyui(fake, slow) as busy,
        open_comfyui(fake, connector_context) as other,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(run_job, busy, job({"workflow": image()}, id="busy"))
        await saving.wait()
        for _ in range(200):
            fake.say({"type": "large", "data": "x" * 200_000})
        result = await run_job(other, job({"workflow": sleeping(0.1, 2)}))
        assert result.success
        assert all(sid in fake.process.sockets for sid in (busy.server.client_id, other.server.client_id))
        with trio.fail_after(60):
            await fake.until(lambda: fake.process.unsent == 0)
        nursery.cancel_scope.cancel()


async def test_nothing_of_a_users_prompt_gets_into_the_log(connector: Any, fake: FakeComfyUI) -> None:
    """8: prompt texts and what a traceback shows stay out of logs, a stranger's (4.9) too."""
    words = "a wish for nobody else to read"  # nothing that a repr would escape
    say = {"class_type": "RigSay", "inputs": {"text": words}}
    bad = image() | {
        "3": say,
        "4": {"class_type": "RigRaise", "inputs": {"image": ["1", 0], "message": f"no\n{words}"}},
    }
    shown = {"prompt_id": "a-stranger", "node": "1", "output": {"text": [words]}}
    with capture_logs() as logs:
        fake.say({"type": "executed", "data": shown})
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job({"workflow": bad}))
        await run_job(connector, job({"workflow": {"3": say}}, id="job-2"))
    assert words not in str(logs)
    assert words not in caught.value.message

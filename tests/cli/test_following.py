"""Waiting for jobs, by ``submit --wait`` and ``watch``: progress on stderr, the outcome on stdout, the exit code."""

from __future__ import annotations

import json
import re
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from emp_trio.queue.embedded import free_port, open_embedded_server
from tests.cli.client_support import gather, open_command, open_player, run_command

ESCAPE = "\x1b"


async def test_wait_shows_lines_on_stderr_and_ends_with_the_result(valkey: str) -> None:
    async with open_player(valkey) as player, open_command("submit", "mock", "--wait", url=valkey) as command:
        claim = await player.claim()
        await player.report(claim, 40, "painting \x1b[31mred")
        await command.until("err", "40 % painting")
        await player.complete(claim, text="a lighthouse")
        assert await command.code() == 0
    assert command.out.splitlines()[0].startswith(f"completed\t{claim.job_id}")
    assert command.out.splitlines()[1:] == [
        "file\thttps://cdn.test/out/x.png  (image/png, 12,345 bytes)",
        'data\t{"text":"a lighthouse"}',
    ]
    assert command.err.splitlines()[-1] == f"{claim.job_id} completed"
    assert ESCAPE not in command.err + command.out


async def test_wait_with_json_prints_one_document_of_a_failed_job(valkey: str) -> None:
    async with open_player(valkey) as player, open_command("submit", "mock", "--wait", "--json", url=valkey) as command:
        await player.fail(await player.claim(), "not this image")
        assert await command.code() == 1
    job = json.loads(command.out)
    assert (job["state"], job["error"], job["failure_type"], job["failure_reason"]) == (
        *("failed", "not this image", "generation_refusal", "nsfw_content"),
    )


async def test_a_cancel_from_elsewhere_ends_the_waiting(valkey: str) -> None:
    async with open_command("submit", "mock", "--wait", "--id", "j1", url=valkey) as command:
        await command.until("err", "j1 queued")
        code, out, _ = await run_command("cancel", "j1", "--reason", "changed my mind", url=valkey)
        assert (code, out) == (0, "j1 cancelled\n")
        assert await command.code() == 1
    assert command.out == "cancelled\tj1\nerror\tchanged my mind\n"


async def test_interrupted_waiting_leaves_the_job_and_says_how_to_go_on(valkey: str) -> None:
    async with open_player(valkey) as player:
        async with open_command("submit", "mock", "--wait", "--id", "j1", url=valkey) as command:
            claim = await player.claim()
            await command.until("err", "j1 running")
            command.interrupt()
            assert await command.code() == 130
        assert command.out == ""
        for words in ("job j1 goes on", "emp-trio watch j1", "emp-trio cancel j1"):
            assert words in command.err
        assert "Traceback" not in command.err
        await player.complete(claim)


async def test_timeout_ends_the_waiting_and_leaves_the_job(valkey: str) -> None:
    code, out, err = await run_command(*"submit mock --id j1 --wait --timeout 0.2 --json".split(), url=valkey)
    assert code == 1
    assert json.loads(out)["state"] == "pending"
    assert "has not ended within 0.2 s" in err
    assert "emp-trio watch j1" in err


async def test_watch_follows_several_jobs_and_tells_late_what_has_ended(valkey: str) -> None:
    async with open_player(valkey) as player:
        await player.queue.submit("mock", job_id="j1")
        await player.complete(await player.claim())
        await player.queue.submit("mock", job_id="j2")
        async with open_command("watch", "j2", "j1", url=valkey) as command:
            await command.until("err", "j1 completed")
            await player.fail(await player.claim(), "no\nway")
            assert await command.code() == 1
        assert [line.split("\t")[0] for line in command.out.splitlines()] == [
            *("failed", "error", "failure", "completed", "file"),
        ]
        assert "error\tno way\n" in command.out
        (late, told, _), (code, out, err) = await gather("watch j1", "watch j1 nobody", url=valkey)
        assert late == 0
        assert told.startswith("completed\tj1")
        assert (code, out.splitlines()[0].split(" in ")[0]) == (1, "completed\tj1")
        assert "there is no job nobody" in err


@pytest.mark.parametrize("columns", [0, 80])
async def test_watch_as_json_lines(valkey: str, columns: int) -> None:
    async with open_player(valkey) as player:
        await player.queue.submit("mock", job_id="j1")
        async with open_command("watch", "j1", "--json", url=valkey, columns=columns) as command:
            await command.until("out", "queued")
            claim = await player.claim()
            await player.report(claim, 12.5, "begun")
            await command.until("out", "begun")
            await player.complete(claim, text="x")
            assert await command.code() == 0
    events = [json.loads(line) for line in command.out.splitlines()]
    assert _bare(command.err).strip() == ""
    assert events[0]["kind"] == "queued"
    assert ("progress", 12.5, player.name) in [(e["kind"], e["progress"], e["worker_id"]) for e in events]
    assert events[-1]["kind"] == "completed"
    assert events[-1]["result"]["data"] == {"text": "x"}


async def test_waiting_outlives_redis(tmp_path: Path) -> None:
    port, server = free_port(), AsyncExitStack()
    url = (await server.enter_async_context(open_embedded_server(tmp_path, port=port))).tcp_url
    try:
        async with open_command("submit", "mock", "--wait", url=url) as command:
            await command.until("err", "queued")
            await server.aclose()
            await command.until("err", "no connection to Redis; waiting for it")
            await server.enter_async_context(open_embedded_server(tmp_path, port=port))
            await command.until("err", "connected to Redis again")
            async with open_player(url) as player:
                await player.complete(await player.claim())
            assert await command.code() == 0
        assert command.out.startswith("completed\t")
    finally:
        await server.aclose()


async def test_a_reader_of_events_may_leave(valkey: str) -> None:
    async with open_player(valkey) as player:
        await player.queue.submit("mock", job_id="j1")
        async with open_command("watch", "j1", "--json", url=valkey) as command:
            await command.until("out", "queued")
            await command.close_out()
            await player.complete(await player.claim())
            assert await command.code() == 1
        assert command.err == ""


@pytest.mark.parametrize("no_colour", [False, True])
async def test_a_terminal_gets_a_bar(valkey: str, no_colour: bool) -> None:
    env = {"NO_COLOR": "1"} if no_colour else {}
    words = ("submit", "mock", "--wait", "--id", "a-job-with-a-rather-long-name-of-its-own")
    async with (
        open_player(valkey) as player,
        open_command(*words, url=valkey, columns=80, env=env) as command,
    ):
        claim = await player.claim()
        await player.report(claim, 40, "painting the sea, the rocks, the tower, the light and the keeper")
        await command.until("err", " 40%")
        await player.complete(claim)
        assert await command.code() == 0
    bars = command.err.replace("\r", "\n")
    assert "━━━" in bars
    assert "100%" in bars
    assert bars.count("\x1b[?25l") == bars.count("\x1b[?25h")  # the cursor is shown again
    coloured = any(code in bars for code in ("\x1b[38;", "\x1b[31m", "\x1b[32m", "\x1b[35m", "\x1b[36m"))
    assert coloured is not no_colour
    assert all(len(_bare(line)) <= 80 for line in bars.split("\n"))
    assert ESCAPE not in command.out


def _bare(line: str) -> str:
    """Without control sequences."""
    return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", line)

"""The client commands as processes on a real server: what is on stdout, what is on stderr, and the exit code."""

from __future__ import annotations

import io
import json
import re
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from emp_trio.cli import run
from emp_trio.cli.connection import redis_url
from emp_trio.queue.client import open_queue
from emp_trio.queue.embedded import free_port, open_embedded_server
from emp_trio.testing.valkey import valkey_server
from tests.cli.client_support import gather, open_command, open_player, run_command, run_json

ESCAPE = "\x1b"


async def test_submit_prints_the_id_alone_and_queues_what_it_was_told(valkey: str, tmp_path: Path) -> None:
    ctx = tmp_path / "ctx.json"
    ctx.write_text('{"storage": {"bucket": "b"}}')
    words = f"submit mock --payload - --ctx @{ctx} --priority 80 --workflow wf --customer c --max-attempts 5".split()
    needs = '{"customer_isolation": "loose"}'
    code, out, err = await run_command(*words, "--requirements", needs, url=valkey, stdin=b'{"prompt": "x"}')
    assert (code, err) == (0, "")
    assert out == out.strip() + "\n"
    async with open_queue(valkey) as queue:
        job = await queue.job(out.strip())
        stored = await queue.port.call("HMGET", f"job:{out.strip()}", "ctx", "requirements", "customer_id")
    assert job is not None
    assert (job.type, job.payload, job.priority, job.max_attempts, job.workflow_id, job.state) == (
        *("mock", {"prompt": "x"}, 80, 5, "wf", "pending"),
    )
    assert [json.loads(stored[0]), json.loads(stored[1]), stored[2]] == [
        *({"storage": {"bucket": "b"}}, {"customer_isolation": "loose"}, b"c"),
    ]


async def test_an_id_is_taken_once(valkey: str) -> None:
    job = await run_json("submit", "mock", "--id", "j1", "--json", url=valkey)
    assert (job["id"], job["state"]) == ("j1", "pending")
    code, out, err = await run_command("submit", "mock", "--id", "j1", url=valkey)
    assert (code, out) == (1, "")
    assert "there is a job 'j1' already" in err


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
        await player.fail(await player.claim(), "not this picture")
        assert await command.code() == 1
    job = json.loads(command.out)
    assert (job["state"], job["error"], job["failure_type"], job["failure_reason"]) == (
        *("failed", "not this picture", "generation_refusal", "nsfw_content"),
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


async def test_bad_json_queues_nothing(valkey: str) -> None:
    code, out, err = await run_command("submit", "mock", "--payload", '{"a":\n 1 "b"}', url=valkey)
    assert (code, out) == (2, "")
    assert err.splitlines() == ["error: --payload: line 2, column 4: expected ',' or '}'", '   1 "b"}', "     ^"]
    async with open_queue(valkey) as queue:
        assert await queue.jobs() == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("submit mock --timeout 3", "--wait is not given"),
        ("submit mock --max-attempts 0", "--max-attempts"),
        ("submit mock --ctx @no/such/file", "--ctx: the file 'no/such/file' can't be read: No such file"),
        ("submit mock --payload - --ctx -", "--ctx"),
        ("submit", "TYPE"),
        ("watch", "JOB_IDS"),
        ("jobs j1 --state failed", "--state is for the list"),
        ("jobs --state broken", "delayed"),
        ("jobs --limit 0", "--limit"),
        ("workers", "give --redis redis://HOST:PORT or set HUB_REDIS_URL"),
    ],
)
def test_wrong_usage_is_explained(
    words: str, reason: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HUB_REDIS_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"{}")))
    assert run(words.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert reason in captured.err


def test_redis_is_that_of_the_option_then_of_hub_redis_url_then_of_redis_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://last")
    monkeypatch.setenv("HUB_REDIS_URL", "")
    assert redis_url(None).reveal() == "redis://last"
    monkeypatch.setenv("HUB_REDIS_URL", "redis://hub")
    assert redis_url(None).reveal() == "redis://hub"
    assert redis_url("redis://given").reveal() == "redis://given"


async def test_the_password_of_redis_is_never_shown() -> None:
    with valkey_server(password="right-password") as url:
        wrong = url.replace("right-password", "guessed-password")
        (code, out, err), right = await gather(f"jobs --redis {wrong}", f"jobs --json --redis {url}")
        assert (code, out) == (2, "")
        assert "Redis refuses the login" in err
        assert "password@" not in err
        assert "guessed" not in err
        assert right == (0, "[]\n", "")


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


async def test_watch_as_json_lines(valkey: str) -> None:
    async with open_player(valkey) as player:
        await player.queue.submit("mock", job_id="j1")
        async with open_command("watch", "j1", "--json", url=valkey) as command:
            await command.until("out", "queued")
            claim = await player.claim()
            await player.report(claim, 12.5, "begun")
            await command.until("out", "begun")
            await player.complete(claim, text="x")
            assert await command.code() == 0
    events = [json.loads(line) for line in command.out.splitlines()]
    assert command.err == ""
    assert events[0]["kind"] == "queued"
    assert ("progress", 12.5, player.name) in [(e["kind"], e["progress"], e["worker_id"]) for e in events]
    assert events[-1]["kind"] == "completed"
    assert events[-1]["result"]["data"] == {"text": "x"}


async def test_jobs_lists_and_shows(valkey: str) -> None:
    async with open_player(valkey) as player:
        await player.queue.submit("mock", {"prompt": "x"}, job_id="bad")
        await player.fail(await player.claim(), "never \x1b[2Jthis")
        await player.queue.submit("mock", job_id="running")
        claim = await player.claim()
        await player.report(claim, 33.4, "half\tway")
        await player.queue.submit("other", job_id="waiting")
    (code, out, _), (_, listed, _), (_, bad, _), (_, bad_json, _), nobody = await gather(
        *("jobs", "jobs --json --state failed", "jobs bad", "jobs bad --json", "jobs nobody --json"), url=valkey
    )
    head, *rows = [line.split("\t") for line in out.splitlines()]
    assert code == 0
    assert [row[:4] for row in rows] == [
        ["running", "mock", "active", "33 %"],
        ["waiting", "other", "pending", ""],
        ["bad", "mock", "failed", ""],
    ]
    assert all(len(row) == len(head) for row in rows)
    assert rows[0][-2:] == [player.name, "half way"]
    assert ESCAPE not in out
    assert [(job["id"], job["failure_reason"]) for job in json.loads(listed)] == [("bad", "nsfw_content")]
    shown = json.loads(bad_json)
    assert (shown["payload"], shown["error"]) == ({"prompt": "x"}, "never \x1b[2Jthis")
    fields = dict(line.split("\t") for line in bad.splitlines())
    assert (fields["state"], fields["failure"], fields["worker"]) == (
        *("failed", "generation_refusal / nsfw_content", player.name),
    )
    assert fields["attempts"] == "1 begun, 1 failed of 3 allowed"
    assert nobody == (1, "", "error: there is no job nobody\n")


async def test_workers(valkey: str) -> None:
    async with open_player(valkey) as player:
        await player.register()
        (worker,) = await run_json("workers", "--json", url=valkey)
        assert (worker["worker_id"], worker["machine_id"], worker["services"]) == (player.name, "m1", ["mock"])
        await player.queue.port.call("DEL", f"worker:{player.name}:heartbeat")
    code, out, _ = await run_command("workers", url=valkey)
    assert code == 0
    assert out.splitlines()[1].split("\t")[:3] == [player.name, "m1", "gone"]


async def test_cancel_and_retry_say_why_they_did_not(valkey: str) -> None:
    async with open_player(valkey) as player:
        await player.queue.submit("mock", job_id="done")
        await player.complete(await player.claim())
        await player.queue.submit("mock", job_id="j1")
    code, out, err = await run_command("cancel", "done", "nobody", "j1", url=valkey)
    assert (code, out) == (1, "j1 cancelled\n")
    assert err == "error: job done had settled already: completed\nerror: there is no job nobody\n"
    code, out, err = await run_command("retry", "done", "nobody", "j1", url=valkey)
    assert (code, out) == (1, "j1 queued\n")
    assert (
        err
        == "error: job done can't be retried, for it has not failed: it is completed\nerror: there is no job nobody\n"
    )
    async with open_queue(valkey) as queue:
        assert [(job.id, job.state) for job in await queue.jobs("pending")] == [("j1", "pending")]


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

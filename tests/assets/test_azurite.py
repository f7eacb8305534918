"""The blob service for tests: it leaves nothing behind, and says what it lacks."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from emp_trio.assets.config import storage_settings
from emp_trio.assets.stores.providers.azure.account import AzureAccount
from emp_trio.testing.azurite import Azurite, install_azurite, running_azurite


def _listens(endpoint: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", urlsplit(endpoint).port or 0)) == 0


def test_it_ends_with_its_block(azurite_cache: Path) -> None:
    with running_azurite(azurite_cache) as azurite:
        assert _listens(azurite.endpoint)
    assert not _listens(azurite.endpoint)


def test_it_ends_with_a_killed_owner(azurite_cache: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from emp_trio.testing.azurite import running_azurite\n"
        "with running_azurite(Path(sys.argv[1])) as azurite:\n"
        "    print(azurite.endpoint, flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(azurite_cache)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        endpoint = owner.stdout.readline().strip()
        assert _listens(endpoint)
        with socket.create_connection(("127.0.0.1", urlsplit(endpoint).port or 0)) as connection:
            owner.kill()
            connection.settimeout(10)
            with contextlib.suppress(ConnectionResetError):  # one way for a connection to end with its process
                assert connection.recv(1) == b""


def test_its_environment_configures_a_worker(azurite: Azurite) -> None:
    settings = storage_settings(azurite.environment("images"))
    assert (settings.provider, settings.container) == ("azure", "images")
    assert settings.accounts["azure"] == AzureAccount(name=azurite.account, key=azurite.key, endpoint=azurite.endpoint)


def test_without_npm_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="needs Node 20 with npm"):
        install_azurite(tmp_path)

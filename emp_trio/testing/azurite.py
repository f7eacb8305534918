"""A real blob service for tests: Azurite, installed through npm into a cache folder and run on a free port.

::

    with running_azurite(Path(".cache")) as azurite:
        azurite.create_container("assets")
        settings = storage_settings(azurite.environment("assets"))
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from emp_trio.secrets import Secret

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

VERSION: Final = "3.35.0"
"""The version that is installed; later ones need a newer Node than 20."""

ACCOUNT: Final = "devstoreaccount1"
KEY: Final = Secret("Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==")
"""Azurite's account and its published key: a secret for nobody."""

# Ends Azurite with the process that started it, also when that one is killed.
_WATCH: Final = 'data:text/javascript,process.stdin.on("end",()=>process.exit(0)).resume()'
_READY: Final = "successfully listens on "


class Azurite(msgspec.Struct, frozen=True, kw_only=True):
    """A running blob service. ``endpoint`` is the base URL of its one account."""

    endpoint: str
    account: str = ACCOUNT
    key: Secret = KEY

    def create_container(self, name: str, *, public: bool = False) -> None:
        """Make a container, empty if it was there.

        Args:
            public: whether blobs can be read without a key, as a CDN does it.
        """
        from azure.storage.blob import PublicAccess

        with self.client() as service:
            container = service.get_container_client(name)
            if container.exists():
                container.delete_container()
            container.create_container(public_access=PublicAccess.BLOB if public else None)

    def client(self) -> BlobServiceClient:
        """A synchronous ``BlobServiceClient``, to look behind the scenes."""
        from azure.storage.blob import BlobServiceClient, LinearRetry

        credential = {"account_name": self.account, "account_key": self.key.reveal()}
        return BlobServiceClient(self.endpoint, credential=credential, retry_policy=LinearRetry(retry_total=0))

    def environment(self, container: str) -> dict[str, str]:
        """The variables that make a worker use this container."""
        return {
            "CLOUD_STORAGE_PROVIDER": "azure",
            "CLOUD_STORAGE_CONTAINER": container,
            "AZURE_STORAGE_ACCOUNT": self.account,
            "AZURE_STORAGE_KEY": self.key.reveal(),
            "AZURE_STORAGE_ENDPOINT": self.endpoint,
        }


def install_azurite(cache: Path, *, limit: float = 300.0) -> Path:
    """Install Azurite below ``cache`` unless it is there; several processes may do so at once.

    Args:
        cache: a folder to keep it in, about 190 MB.
        limit: seconds for npm.

    Returns:
        the script that starts its blob service.

    Raises:
        RuntimeError: there is no Node or npm, or npm failed; with its last lines.
    """
    folder = cache / f"azurite-{VERSION}"
    script = folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "azurite.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _installed(folder) == VERSION:
            return script
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            raise RuntimeError("Azurite needs Node 20 with npm on PATH")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        arguments = ["install", "--prefix", str(folder), f"azurite@{VERSION}", "--save-exact", "--omit=dev"]
        quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", "--fetch-retries=1"]
        done = subprocess.run(  # our own command line
            [npm, *arguments, *quiet], capture_output=True, text=True, timeout=limit, check=False
        )
        if done.returncode != 0 or _installed(folder) != VERSION:
            raise RuntimeError(f"npm could not install Azurite {VERSION}: {done.stderr.strip()[-1000:]}")
    return script


@contextmanager
def running_azurite(
    cache: Path,
    *,
    memory_mb: int | None = None,
    certificate: Path | None = None,
    start_limit: float = 30.0,
    stop_limit: float = 10.0,
) -> Iterator[Azurite]:
    """Run a blob service on a free loopback port for as long as the block runs; it keeps everything in memory.

    Args:
        cache: where it is installed, or will be (see :func:`install_azurite`).
        memory_mb: megabytes it may hold; above, it answers that it is full.
        certificate: file with a certificate and its key, to serve https and take tokens of an identity (of any, as long
            as they are meant for storage).
        start_limit: seconds until it must be ready.
        stop_limit: seconds for its end, before it is killed.

    Raises:
        RuntimeError: it could not be installed or did not start; with the last lines it wrote.
    """
    script = install_azurite(cache)
    node = shutil.which("node") or "node"
    options = [
        "--silent",
        "--inMemoryPersistence",
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        "0",
        "--skipApiVersionCheck",
    ]
    options += ["--disableProductStyleUrl", "--disableTelemetry"]
    if memory_mb is not None:
        options += ["--extentMemoryLimit", str(memory_mb)]
    if certificate is not None:
        options += ["--oauth", "basic", "--cert", str(certificate), "--key", str(certificate)]
    with (
        tempfile.TemporaryDirectory(prefix="emp-trio-azurite-") as home,
        subprocess.Popen(  # our own command line
            [node, "--import", _WATCH, str(script), *options],
            cwd=home,
            env={**os.environ, "NODE_OPTIONS": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        assert process.stdin is not None
        late = threading.Timer(start_limit, process.kill)
        late.start()
        try:
            url = _wait_until_ready(process)
            late.cancel()
            yield Azurite(endpoint=f"{url}/{ACCOUNT}")
        finally:
            late.cancel()
            process.stdin.close()
            try:
                process.wait(stop_limit)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_ready(process: subprocess.Popen[str]) -> str:
    """The URL that the service says it listens on."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        if _READY in line:
            return line.partition(_READY)[2].strip()
        said.append(line.strip())
    raise RuntimeError(f"Azurite did not start: {' | '.join(said[-5:])}")


def _installed(folder: Path) -> str | None:
    """The version that is completely installed in a folder; npm writes the lock file last."""
    try:
        json.loads((folder / "node_modules" / ".package-lock.json").read_text())
        found = json.loads((folder / "node_modules" / "azurite" / "package.json").read_text())
    except (OSError, ValueError):
        return None
    return str(found.get("version"))

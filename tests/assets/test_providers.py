"""A new store is one file: a module beside the providers that there are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from emp_trio.assets.config import storage_settings
from emp_trio.assets.storage import open_asset_storage
from emp_trio.assets.stores import providers, registry
from emp_trio.errors import ConfigError, InvalidJob
from emp_trio.testing.attempt import FakeAttempt
from emp_trio.testing.png import make_png
from tests.assets.support import a_job

PNG = make_png()
ENV = {"CLOUD_STORAGE_PROVIDER": "memory", "CLOUD_STORAGE_CONTAINER": "shelf", "MEMORY_STORAGE_KEY": "a toy's secret"}
TOY = """
from __future__ import annotations

import msgspec

from emp_trio.assets.stores import Stored
from emp_trio.assets.stores.provider import required_container
from emp_trio.secrets import Secret

BLOBS = {}


class Account(msgspec.Struct, frozen=True):
    key: Secret

    @property
    def secrets(self):
        return (self.key,)


class MemoryStore:
    def __init__(self, shelf):
        self._shelf = shelf

    def head(self, key, cancel):
        return BLOBS.get((self._shelf, key), (None, None))[0]

    def put(self, blob, body, over, cancel):
        content = body.read(blob.size)
        BLOBS[self._shelf, blob.key] = (Stored(size=blob.size, sha256=blob.sha256, owner=blob.owner), content)

    def url(self, key):
        return f"memory://{self._shelf}/{key}"

    def close(self):
        pass


class MemoryProvider:
    name = "memory"
    aliases = ("ram",)

    def from_env(self, env, report, *, chosen):
        if chosen and "MEMORY_STORAGE_KEY" not in env:
            report("MEMORY_STORAGE_KEY", "is not set")
        return Account(Secret(env["MEMORY_STORAGE_KEY"])) if "MEMORY_STORAGE_KEY" in env else None

    def check_name(self, container):
        return None if container.isalpha() else "is not a shelf"

    def location_for(self, ctx, account, container):
        return required_container(container), True

    def requires(self, location, ctx):
        pass

    def load(self):
        pass

    def open(self, location, timeouts):
        return MemoryStore(location)


PROVIDER = MemoryProvider()
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "memory.py").write_text(TOY)
    monkeypatch.setattr(providers, "__path__", [*providers.__path__, str(tmp_path)])
    registry.providers.cache_clear()
    yield
    registry.providers.cache_clear()


@pytest.mark.usefixtures("toy")
async def test_a_store_of_one_file() -> None:
    settings = storage_settings(ENV)
    assert [secret.reveal() for secret in settings.secrets] == ["a toy's secret"]
    async with open_asset_storage(settings) as saver:
        saved = await saver.save(PNG, a_job(), FakeAttempt())
        assert saved.file_url == "memory://shelf/job-1_0.png"
        again = await saver.save(PNG, a_job(provider="RAM"), FakeAttempt())
        assert again.sha256 == saved.sha256
        with pytest.raises(InvalidJob, match="is not a shelf"):
            saver.check(a_job(bucket="no. 7"))


@pytest.mark.usefixtures("toy")
def test_what_is_wrong_with_it_is_said_as_of_any_other() -> None:
    with pytest.raises(ConfigError) as caught:
        storage_settings(ENV | {"CLOUD_STORAGE_CONTAINER": "7", "MEMORY_STORAGE_KEY": ""})
    assert {problem.variable for problem in caught.value.problems} == {"CLOUD_STORAGE_CONTAINER", "MEMORY_STORAGE_KEY"}
    with pytest.raises(ConfigError, match="use azure, gcs, local, memory or s3"):
        storage_settings({"CLOUD_STORAGE_PROVIDER": "tape"})


def test_the_stores_that_there_are() -> None:
    assert list(registry.providers()) == ["azure", "gcs", "local", "s3"]
    for name in ("aws", "Google", " S3 ", "azure"):
        assert registry.find_provider(name) is not None
    assert registry.find_provider("memory") is None

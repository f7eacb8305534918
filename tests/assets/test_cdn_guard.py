"""A CDN that a job names is asked at public addresses only, and what is refused is refused before anything is paid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import trio

from emp_trio.assets.config import CdnSettings, StorageSettings, storage_settings
from emp_trio.assets.storage import AssetStorage, open_asset_storage
from emp_trio.attempt import StageLimits
from emp_trio.errors import AssetError, ConfigError, InvalidJob
from emp_trio.jobs import JobResult
from emp_trio.protocols.saves_assets import AssetSaver, Generated
from emp_trio.testing.attempt import FakeAttempt
from emp_trio.testing.cdn import open_cdn
from emp_trio.testing.faulty_server import hang, open_faulty_server, redirect, reply
from emp_trio.testing.png import make_png
from emp_trio.testing.storage import local_storage
from tests.assets.support import a_job
from tests.names import Names

PNG = make_png()
QUICK = CdnSettings(first_pause=0.01, longest_pause=0.05, probe_timeout=0.5)
REFUSED = "ctx.storage.cdnUrl .*operator"

LITERALS = """
    http://127.0.0.1:6379 http://127.0.0.1:{port} http://127.1 2130706433:{port} http://0x7f.1 http://0x7f000001
    http://0177.0.0.1 http://0 http://0.0.0.0:{port} http://[::1]:{port} http://[::]:{port} http://[::ffff:127.0.0.1]
    http://[::ffff:7f00:1] http://[::127.0.0.1] http://[64:ff9b::7f00:1] http://[2002:7f00:1::] http://[fe80::1]
    http://[fe80::1%25lo] http://[fd00:ec2::254] localhost:{port} http://localhost.:{port} http://LOCALHOST
    http://redis.localhost 127.0.0.1.:{port} http://127。0。0。1 http://10.0.0.1 http://192.168.1.1/x
    http://172.16.0.1 http://100.64.0.1 http://169.254.169.254/latest/meta-data http://0xA9FEA9FE
    http://168.63.129.16 http://224.0.0.1 http://255.255.255.255 https://127.0.0.1
""".split()
UNREADABLE = """
    http://１２７.０.０.１ http://①②⑦.0.0.1 http://good@127.0.0.1 http://user:pw@1.1.1.1 file:///etc/passwd ftp://1.1.1.1
    gopher://127.0.0.1:6379/_INFO http://1.1.1.1\\@127.0.0.1 http://127.0.0.1#@1.1.1.1 http://127.0.0.1?@1.1.1.1
    http://1.1.1.1:0 http://1.1.1.1:65536 http://[::1 //127.0.0.1
""".split()


class Closed:
    """A connector whose service must not be asked."""

    def __init__(self, saver: AssetStorage) -> None:
        self.assets = AssetSaver(saver)

    async def run(self, job: Any) -> None:
        await self.assets.produce(
            job, FakeAttempt(), make=self._make, result=lambda facts, saved: JobResult(success=True)
        )

    async def _make(self) -> Generated:
        raise AssertionError("the service was asked")


def local(folder: Path, **more: Any) -> StorageSettings:
    return local_storage(folder, cdn=QUICK, **more)


@pytest.mark.parametrize("cdn", LITERALS + UNREADABLE)
async def test_an_address_inside_is_refused_before_anything_is_done(tmp_path: Path, cdn: str) -> None:
    async with open_faulty_server(hang()) as inside, open_asset_storage(local(tmp_path / "files")) as saver:
        job = a_job(cdn_url=cdn.format(port=inside.port))
        with pytest.raises(InvalidJob, match=r"ctx\.storage\.cdnUrl"):
            saver.check(job)
        with pytest.raises(InvalidJob):
            await saver.save(PNG, job, FakeAttempt())
        with pytest.raises(InvalidJob):
            await Closed(saver).run(job)
        assert inside.requests == []
    assert not (tmp_path / "files").exists()


async def test_a_name_that_leads_inside_is_refused_before_anything_is_paid_or_stored(tmp_path: Path) -> None:
    Names(inside_example=[["10.1.2.3"]], both_example=[["1.1.1.1", "127.0.0.1"]])
    async with open_asset_storage(local(tmp_path / "files")) as saver:
        for name in ("inside.example", "both.example", "nowhere.example"):
            job = a_job(cdn_url=f"https://{name}/base")
            with pytest.raises(InvalidJob, match=REFUSED):
                await Closed(saver).run(job)
            with pytest.raises(InvalidJob, match=REFUSED):
                await saver.save(PNG, job, FakeAttempt())
    assert not (tmp_path / "files").exists()


async def test_the_errors_of_what_is_there_and_of_what_is_not_are_the_same(tmp_path: Path) -> None:
    Names(inside_example=[["127.0.0.1"]])
    texts = set()
    async with open_faulty_server(reply(200)) as inside, open_asset_storage(local(tmp_path)) as saver:
        for cdn in (f"http://127.0.0.1:{inside.port}", "http://127.0.0.1:1", "http://inside.example", "http://no.such"):
            with pytest.raises(InvalidJob) as caught:
                await saver.save(PNG, a_job(cdn_url=cdn), FakeAttempt())
            texts.add(caught.value.message)
        assert inside.requests == []
    (text,) = texts
    assert not re.search(r"\d", text), "no port, status or address"


async def test_a_name_that_changes_its_mind_gains_nothing(tmp_path: Path) -> None:
    """Looked up when the job comes, when it is saved, and once for each probe, which goes where that look-up said."""
    Names(turns_example=[["1.1.1.1"], ["127.0.0.1"]])
    async with open_faulty_server(reply(200)) as inside, open_asset_storage(local(tmp_path)) as saver:
        job = a_job(cdn_url=f"http://turns.example:{inside.port}")
        await saver.kept(job)
        with pytest.raises(InvalidJob, match=REFUSED):
            await saver.save(PNG, job, FakeAttempt())
        assert inside.requests == []


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:{port}/x", "http://169.254.169.254/", "http://2130706433:{port}/"]
)
async def test_no_redirect_of_the_operators_cdn_leads_inside(tmp_path: Path, target: str) -> None:
    async with (
        open_faulty_server(hang()) as inside,
        open_faulty_server(redirect(target.format(port=inside.port))) as cdn,
    ):
        async with open_asset_storage(local(tmp_path, cdn_url=cdn.url)) as saver:
            with pytest.raises(AssetError, match="redirects to a place") as caught:
                await saver.save(PNG, a_job(), FakeAttempt())
        assert inside.requests == []
    assert not caught.value.retry
    assert "169.254" not in caught.value.message
    assert "2130706433" not in caught.value.message


async def test_a_redirect_of_a_jobs_cdn_is_checked_again(tmp_path: Path) -> None:
    """Private networks are open here; what belongs to the machine's provider never is."""
    async with (
        open_faulty_server(redirect("http://169.254.169.254/latest")) as cdn,
        open_asset_storage(local(tmp_path, cdn_private=True)) as saver,
    ):
        with pytest.raises(InvalidJob, match=REFUSED) as caught:
            await saver.save(PNG, a_job(cdn_url=cdn.url), FakeAttempt())
    assert "169.254" not in caught.value.message


@pytest.mark.parametrize("host", ["127.0.0.1", "cdn.example"])
async def test_the_operator_may_open_private_networks_to_the_cdns_of_jobs(tmp_path: Path, host: str) -> None:
    Names(cdn_example=[["127.0.0.1"]])
    settings = storage_settings(
        {
            "CLOUD_STORAGE_PROVIDER": "local",
            "LOCAL_STORAGE_PATH": str(tmp_path),
            "CLOUD_CDN_ALLOW_PRIVATE": "true",
        }
    )
    async with open_cdn(tmp_path) as cdn, open_asset_storage(settings) as saver:
        base = cdn.url.replace("127.0.0.1", host)
        cdn.missing, cdn.refuses_head = 1, True
        saved = await saver.save(PNG, a_job(cdn_url=base), FakeAttempt(limits=StageLimits(cdn=10)))
        assert saved.cdn_url == f"{base}/job-1_0.png"


async def test_a_job_may_name_the_operators_own_cdn_and_nothing_beside_it(tmp_path: Path) -> None:
    async with open_cdn(tmp_path) as cdn, open_asset_storage(local(tmp_path, cdn_url=f"{cdn.url}/")) as saver:
        saved = await saver.save(PNG, a_job(cdn_url=cdn.url), FakeAttempt())
        assert saved.cdn_url == f"{cdn.url}/job-1_0.png"
        for other in (f"{cdn.url}/admin", f"{cdn.url}/../x", cdn.url.replace("127.0.0.1", "127.0.0.2")):
            with pytest.raises(InvalidJob, match=REFUSED):
                saver.check(a_job(cdn_url=other))


def test_the_setting_is_true_or_false() -> None:
    assert not storage_settings({}).cdn_private
    assert not storage_settings({"CLOUD_CDN_ALLOW_PRIVATE": "False"}).cdn_private
    with pytest.raises(ConfigError, match="CLOUD_CDN_ALLOW_PRIVATE"):
        storage_settings({"CLOUD_CDN_ALLOW_PRIVATE": "perhaps"})


async def test_a_job_waits_for_a_name_that_cannot_be_resolved_for_now(tmp_path: Path) -> None:
    Names(busy_example=[[]]).later.add("busy.example")
    async with open_asset_storage(local(tmp_path)) as saver:
        with trio.fail_after(20), pytest.raises(Exception, match="can't be resolved") as caught:
            await saver.save(PNG, a_job(cdn_url="http://busy.example"), FakeAttempt(limits=StageLimits(cdn=0.3)))
    assert caught.value.retry  # type: ignore[attr-defined]

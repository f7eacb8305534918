"""Finished generations that could not be uploaded: kept for the next attempt, safely, and not for ever."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.assets.config import KeepSettings, StorageSettings, storage_settings
from emp_trio.assets.spool import GenerationSpool
from emp_trio.assets.storage import open_asset_storage
from emp_trio.attempt import StageLimits
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import AssetError, DeadlineExceeded, ServiceError
from emp_trio.jobs import Job, JobContext, JobResult, SavedAsset
from emp_trio.protocols.saves_assets import AssetSaver, Generated, GeneratedFile
from emp_trio.testing.attempt import FakeAttempt
from emp_trio.testing.png import make_png
from emp_trio.testing.storage import local_storage
from tests.assets.support import a_job

MADE = Generated(
    files=(GeneratedFile(data=make_png(), media_type="image/png"), GeneratedFile(data=b"words")),
    data={"model": "m", "usage": {"tokens": 3}},
)
BROUGHT = (MADE.data, [file.data for file in MADE.files])


class Service:
    """A connector's part that makes things, and counts what it is paid for."""

    def __init__(self, connector_context: ConnectorContext, made: Generated = MADE) -> None:
        self.assets = AssetSaver(connector_context.assets)
        self.made = made
        self.paid = 0

    async def run(self, job: Job, context: FakeAttempt) -> tuple[dict[str, Any], list[SavedAsset]]:
        """The facts and the files that the result was made of."""
        parts: list[Any] = []

        def result(facts: dict[str, Any], saved: list[SavedAsset]) -> JobResult:
            parts.extend((facts, saved))
            return JobResult(success=True)

        await self.assets.produce(job, context, make=self._make, result=result)
        return parts[0], parts[1]

    async def _make(self) -> Generated:
        self.paid += 1
        await trio.lowlevel.checkpoint()
        return self.made


class Machine:
    """A machine whose storage can be out of order; each attempt is a new process to it."""

    def __init__(self, root: Path, **keep: Any) -> None:
        self.folder = root / "assets"
        self.kept = root / "kept"
        self.paid = 0
        self._keep = KeepSettings(folder=self.kept, **keep)

    async def attempt(self, job: Job, context: FakeAttempt | None = None, *, broken: bool = False) -> Any:
        """One attempt: what the result was made of (see BROUGHT) and the saved files, or the error."""
        path = self.folder
        if broken:
            path = self.folder.with_name("in the way")
            path.write_text("a file")
        async with open_asset_storage(local_storage(path, keep=self._keep)) as saver:
            service = Service(ConnectorContext(assets=saver))
            try:
                facts, saved = await service.run(job, context or FakeAttempt())
                return (facts, [(path / asset.file_path).read_bytes() for asset in saved]), saved
            except (AssetError, DeadlineExceeded) as error:
                return error
            finally:
                self.paid += service.paid

    def files(self) -> list[Path]:
        """What is kept."""
        return sorted(self.kept.iterdir()) if self.kept.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine."""
    return Machine(tmp_path)


async def test_the_next_attempt_uploads_and_generates_nothing(machine: Machine) -> None:
    job = a_job("jöb/../1", prefix="a")
    error = await machine.attempt(job, broken=True)
    assert isinstance(error, AssetError)
    assert (error.paid, error.reason) == (True, "invalid_payload")
    assert error.retry, "the next attempt that the text promises has to come"
    assert "is paid for. Its files are kept on this machine in" in error.message
    assert [str(path) in error.message for path in machine.files()] == [True]

    context = FakeAttempt()
    made, saved = await machine.attempt(msgspec.structs.replace(job, attempt=2, retry_count=1), context)
    assert machine.paid == 1
    assert made == BROUGHT
    assert [asset.file_name.rpartition("_")[2] for asset in saved] == ["0.png", "1.txt"]
    assert context.reports[0].message == "uploading what an earlier attempt has generated"
    assert machine.files() == []


async def test_an_upload_that_works_keeps_nothing(machine: Machine) -> None:
    made, saved = await machine.attempt(a_job())
    assert (made, len(saved), machine.paid) == (BROUGHT, 2, 1)
    assert machine.files() == []


async def test_a_stage_that_runs_out_of_time_keeps_the_files(machine: Machine) -> None:
    error = await machine.attempt(a_job(), FakeAttempt(limits=StageLimits(upload=0.0)))
    assert isinstance(error, DeadlineExceeded)
    assert error.stage == "upload"
    assert "succeeded and is paid for. Its files are kept" in error.message
    assert (await machine.attempt(a_job()))[0] == BROUGHT
    assert machine.paid == 1


@pytest.mark.parametrize("users", [True, False], ids=["user's cancel", "drain"])
async def test_a_cancelled_upload(machine: Machine, users: bool) -> None:
    await machine.attempt(a_job(), broken=True)
    before = machine.files()[0].read_bytes()
    with trio.CancelScope() as scope:
        context = FakeAttempt(stop_remote_work=users)
        context.stages.stage = lambda name: scope.cancel() or trio.CancelScope()  # type: ignore[method-assign, func-returns-value]
        await machine.attempt(a_job(), context)
    assert scope.cancelled_caught
    assert [path.read_bytes() for path in machine.files()] == ([] if users else [before])


async def test_a_damaged_generation_is_not_kept(machine: Machine) -> None:
    async with open_asset_storage(local_storage(machine.folder)) as saver:
        service = Service(ConnectorContext(assets=saver), Generated(files=(GeneratedFile(data=b""),), data={}))
        with pytest.raises(ServiceError, match="empty"):
            await service.run(a_job(), FakeAttempt())
    assert machine.files() == []


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _alter(part: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[content.index(part) + len(part) - 1] ^= 1
        path.write_bytes(content)

    return change


def _older(path: Path) -> None:
    """As the version before wrote it."""
    header = b'{"job":"x","request":"y","data":{},"files":[]}'
    path.write_bytes(f"{hashlib.sha256(header).hexdigest()} {len(header)}\n".encode() + header)


def _packed(path: Path) -> None:
    """With the same members, compressed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _link(path: Path) -> None:
    path.symlink_to(path.rename(path.with_name("elsewhere")))


@pytest.mark.parametrize(
    "spoil",
    [
        _cut,
        _alter(b"words"),
        _alter(b"PK"),
        _alter(b'"request":"'),
        _alter(b"generation.json"),
        _older,
        _packed,
        _link,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 1000),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=[
        "cut",
        "altered file",
        "altered signature",
        "altered header",
        "altered name",
        "older version",
        "packed",
        "link",
        "empty",
        "junk",
        "folder",
    ],
)
async def test_a_spoilt_file_is_ignored(machine: Machine, spoil: Callable[[Path], None]) -> None:
    await machine.attempt(a_job(), broken=True)
    spoil(machine.files()[0])
    made, _ = await machine.attempt(a_job())
    assert (made, machine.paid) == (BROUGHT, 2)


def test_whatever_bit_is_altered_nothing_else_comes_of_it(tmp_path: Path) -> None:
    keep = GenerationSpool(KeepSettings(folder=tmp_path / "kept"))
    small = Generated(files=(GeneratedFile(data=b"a file"), GeneratedFile(data=b"")), data={"n": 1})
    path = keep.store(small, a_job(), lambda: None)
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        assert keep.find(a_job()) in (None, small)


@pytest.mark.parametrize(
    "other",
    [
        Job(id="job-1", type="image", payload={"prompt": "a dog"}),
        Job(id="job-1", type="film", payload={"prompt": "a cat"}),
        Job(id="job-1", type="image", payload={"prompt": "a cat"}, ctx=JobContext(workflow_attempt=1)),
        Job(id="job-2", type="image", payload={"prompt": "a cat"}),
    ],
)
async def test_only_the_same_request_gets_it(machine: Machine, other: Job) -> None:
    await machine.attempt(Job(id="job-1", type="image", payload={"prompt": "a cat"}), broken=True)
    await machine.attempt(other)
    assert machine.paid == 2


async def test_it_is_for_this_user_alone(machine: Machine) -> None:
    await machine.attempt(a_job(), broken=True)
    assert stat.S_IMODE(machine.kept.stat().st_mode) == 0o700
    assert stat.S_IMODE(machine.files()[0].stat().st_mode) == 0o600
    machine.kept.chmod(0o777)
    error = await machine.attempt(a_job("other"), broken=True)
    assert "could not be kept" in error.message
    assert "this user alone" in error.message
    assert len(machine.files()) == 1


async def test_no_room_is_said(tmp_path: Path) -> None:
    small = Machine(tmp_path, max_bytes=100)
    error = await small.attempt(a_job(), broken=True)
    assert "could not be kept on this machine" in error.message
    assert not error.retry
    assert "another attempt has to generate again" in error.message
    assert small.files() == []


async def test_a_slow_disk_is_given_a_limit(tmp_path: Path) -> None:
    slow = Machine(tmp_path, limit=0.0)
    error = await slow.attempt(a_job(), broken=True)
    assert "more than 0 s" in error.message


async def test_the_oldest_gives_way_and_the_old_goes(tmp_path: Path) -> None:
    size = sum(len(file.data) for file in MADE.files)
    machine = Machine(tmp_path, max_bytes=int(size * 2.9), max_age=1000.0)
    for number in range(4):
        await machine.attempt(a_job(f"job-{number}"), broken=True)
        for path in machine.files():
            about = path.stat()
            os.utime(path, (about.st_mtime - 10, about.st_mtime - 10))
    assert len(machine.files()) == 2
    machine.paid = 0
    await machine.attempt(a_job("job-0"))
    await machine.attempt(a_job("job-3"))
    assert machine.paid == 1
    (other,) = machine.files()  # of a job that went on elsewhere
    left = machine.kept / "cafe.unfinished"
    foreign = machine.kept / "notes.txt"
    for path in (other, left, foreign):
        path.touch()
        os.utime(path, (1, 1))
    await machine.attempt(a_job("another"))  # any job of a new process is an occasion
    assert machine.files() == [foreign]


def test_a_write_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    class Stopped(BaseException):
        pass

    def stop() -> None:
        raise Stopped

    keep = GenerationSpool(KeepSettings(folder=tmp_path / "kept"))
    with pytest.raises(Stopped):
        keep.store(MADE, a_job(), stop)
    assert list((tmp_path / "kept").iterdir()) == []


facts = st.dictionaries(st.text(), st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), max_size=4)
files = st.lists(st.builds(GeneratedFile, data=st.binary(max_size=300), media_type=st.none() | st.text()), max_size=4)


@given(id=st.text(max_size=300), facts=facts, files=files, payload=facts)
def test_any_generation_of_any_job(
    id: str, facts: dict[str, Any], files: list[GeneratedFile], payload: dict[str, Any]
) -> None:
    job = Job(id=id, type="image", payload=payload)
    made = Generated(files=tuple(files), data=facts)
    with tempfile.TemporaryDirectory() as folder:
        keep = GenerationSpool(KeepSettings(folder=Path(folder) / "kept"))
        assert keep.store(made, job, lambda: None).parent == Path(folder) / "kept"
        assert keep.find(job) == made
        keep.forget(job)
        assert keep.find(job) is None


def test_the_environment_says_where() -> None:
    assert storage_settings({"EMP_TRIO_KEEP_DIR": "/state/kept"}).keep.folder == Path("/state/kept")
    default = storage_settings({}).keep.folder
    assert default is not None
    assert default.is_relative_to(tempfile.gettempdir())
    assert StorageSettings().keep.folder is None


def _linked(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


@pytest.mark.parametrize("spoil", [_linked, lambda folder: folder.chmod(0o755)], ids=["a link", "open to others"])
async def test_nothing_is_taken_from_or_done_in_a_folder_that_is_not_ours_alone(
    machine: Machine, spoil: Callable[[Path], None]
) -> None:
    await machine.attempt(a_job(), broken=True)
    before = [(path.name, path.read_bytes()) for path in machine.files()]
    os.utime(machine.files()[0], (1, 1))  # old enough to be swept away
    spoil(machine.kept)
    made, _ = await machine.attempt(a_job("another"))
    assert made == BROUGHT
    await machine.attempt(a_job())
    assert machine.paid == 3, "what lies there is not trusted"
    assert [(path.name, path.read_bytes()) for path in machine.files()] == before
    error = await machine.attempt(a_job("third"), broken=True)
    assert "could not be kept on this machine" in error.message

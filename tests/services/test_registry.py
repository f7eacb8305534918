"""Connectors are found by name, by place and by entry point; what is no connector is refused with a reason."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from emp_trio.attempt import AttemptContext
from emp_trio.errors import ConfigError
from emp_trio.jobs import Job, JobResult
from emp_trio.services.connector import Connector
from emp_trio.services.mock import MockConnector
from emp_trio.services.registry import connectors, find_connector

HERE = __name__


class GoodConnector(Connector):
    """A connector of somebody else's."""

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        return JobResult(success=True)


class Runless(Connector):
    """Has no run."""


class NotAsync(Connector):
    """Forgot the async."""

    def run(self, job: Job, context: AttemptContext) -> JobResult:  # type: ignore[override]
        return JobResult(success=True)


class Thawed(Connector):
    """Settings that can change under everybody's feet."""

    class Settings(msgspec.Struct):  # type: ignore[override]
        pass

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        return JobResult(success=True)


def function() -> None:
    """Not even a class."""


@pytest.mark.parametrize("path", [None, "", "./redis-direct-worker.js"])
def test_a_built_in_connector_is_found_by_name(path: str | None) -> None:
    assert find_connector("MockConnector", path) is MockConnector


def test_every_built_in_connector_loads() -> None:
    found = connectors()
    names = [info.name for info in found]
    assert names == sorted(names)
    assert {
        "GeminiConnector",
        "MockConnector",
        "OllamaConnector",
        "OpenAITextConnector",
        "SimulationHttpConnector",
    } <= set(names)
    assert [(info.name, info.problem) for info in found if info.problem] == []
    for info in found:
        connector = find_connector(info.name)
        assert connector is not None
        assert connector.name() == info.name
        assert info.service_type
        assert info.service_features is not None


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("OpenAITxtConnector", "OpenAITextConnector"),
        ("MockConector", "MockConnector"),
        ("comfyuiwebsocketconnector", "ComfyUIWebSocketConnector"),
    ],
)
def test_a_slip_in_a_name_is_told(name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"there is no connector '{name}' \(did you mean {meant}\?\)"):
        find_connector(name)


@pytest.mark.parametrize("name", ["NobodysConnector", "Nonsense", ""])
def test_an_unknown_name_is_nobody(name: str) -> None:
    assert find_connector(name, "./redis-direct-worker.js") is None


def test_a_connector_is_found_by_its_place() -> None:
    assert find_connector("Whatever", f"{HERE}:GoodConnector") is GoodConnector


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (f"{HERE}:Runless", "has no run method"),
        (f"{HERE}:NotAsync", "not async"),
        (f"{HERE}:Thawed", "not frozen"),
        (f"{HERE}:function", "is not a class"),
        (f"{HERE}:Path", "does not have emp_trio.services.connector.Connector among its bases"),
        (f"{HERE}:Missing", "AttributeError"),
        ("no.such.module:Class", "ModuleNotFoundError"),
        (HERE, "not of the form package.module:Class"),
        ("./somewhere/else.py", "not of the form package.module:Class"),
    ],
)
def test_what_is_no_connector_is_refused_with_the_reason(place: str, reason: str) -> None:
    assert Path  # one of the places
    with pytest.raises(ConfigError) as caught:
        find_connector("Name", place)
    assert reason in caught.value.message
    assert place in caught.value.message


def install(folder: Path, package: str, *entries: str) -> None:
    """Put a package with entry points on a path, as an installer does."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[emp_trio.connectors]\n" + "\n".join(entries))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that packages can be installed into."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_an_entry_point_of_another_package_is_found(site: Path) -> None:
    install(site, "their-connectors", f"TheirConnector = {HERE}:GoodConnector")
    assert find_connector("TheirConnector") is GoodConnector
    theirs = next(info for info in connectors() if info.name == "TheirConnector")
    assert (theirs.origin, theirs.place, theirs.problem) == ("their-connectors", f"{HERE}:GoodConnector", "")


def test_a_broken_entry_point_harms_nobody_else(site: Path) -> None:
    install(site, "broken-connectors", "BrokenConnector = no.such.module:Class")
    with pytest.raises(ConfigError, match="BrokenConnector of broken-connectors"):
        find_connector("BrokenConnector")
    listed = {info.name: info.problem for info in connectors()}
    assert "ModuleNotFoundError" in listed["BrokenConnector"]
    assert listed["MockConnector"] == ""


def test_two_packages_with_one_name_are_an_error(site: Path) -> None:
    install(site, "first", f"TheirConnector = {HERE}:GoodConnector")
    install(site, "second", f"TheirConnector = {HERE}:Runless")
    with pytest.raises(ConfigError, match="more than one package"):
        find_connector("TheirConnector")

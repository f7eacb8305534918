"""``emp-trio connectors``: what is installed, what it can do, what it must be given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emp_trio.cli import run


def test_the_connectors_are_listed_for_people_and_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["connectors"]) == 0
    header, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert header == ["CONNECTOR", "SERVICE TYPE", "ITS SERVICE OFFERS", "FROM"]
    assert ["MockConnector", "mock", "health check, cancellation", "built in"] in rows
    assert run(["connectors", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["connectors"]
    assert [row[0] for row in rows] == [connector["name"] for connector in listed]


def test_the_settings_of_a_connector_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["connectors", "OpenAIResponsesConnector"]) == 0
    out = capsys.readouterr().out
    assert "api_key\tSecret\t${OPENAI_API_KEY}\t(must be given)\n" in out
    assert run(["connectors", "OpenAIResponsesConnector", "--json"]) == 0
    settings = {s["name"]: s for s in json.loads(capsys.readouterr().out)["settings"]}
    assert settings["api_key"]["required"]
    assert not settings["base_url"]["required"]
    assert settings["timeout"]["type"] == "number"


def test_what_a_service_cannot_do_is_said_with_what_follows(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["connectors", "LimitedServiceConnector"]) == 0
    out = capsys.readouterr().out
    assert "Its service offers: health check\n" in out
    assert "It has no job status: work that a dead worker has left is begun, and paid for, anew\n" in out
    assert "It has no cancellation: work goes on in it after its job was cancelled\n" in out


def test_a_misspelt_connector_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["connectors", "MokConnector"]) == 2
    assert "did you mean MockConnector?" in capsys.readouterr().err


def test_a_broken_connector_is_reported_beside_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "broken-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[emp_trio.connectors]\nBroken = nowhere_to_be_found:Broken\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run(["connectors"]) == 1
    captured = capsys.readouterr()
    assert "MockConnector\t" in captured.out
    assert captured.err.startswith("warning: the connector Broken: nowhere_to_be_found:Broken cannot be imported")

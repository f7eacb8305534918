"""A type checker knows what a connector is composed of."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.project.support import ROOT

EXAMPLES = [ROOT / "examples" / name for name in ("atelier.py", "shouting.py")]

WRONG = """
from __future__ import annotations

import msgspec

from emp_trio.protocols.http import Http, HttpSettings
from emp_trio.protocols.polling import Polling, PollingSettings
from emp_trio.services.connector import Connector


class WrongConnector(Http, Polling, Connector["WrongConnector.Settings"]):
    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        http: HttpSettings
        polling: PollingSettings = PollingSettings()

    async def wrong(self) -> None:
        self.settings.https
        self.settings.polling.intervall
        await self.http.request("GET", "/", jsn={})
        self.http.requst
        await self.poller.poll(1)
        self.limiter.limit()
        self.streaming
"""

ERRORS = [
    '"Settings" has no attribute "https"',
    '"PollingSettings" has no attribute "intervall"',
    'Unexpected keyword argument "jsn" for "request" of "HttpClient"',
    '"HttpClient" has no attribute "requst"',
    'Argument 1 to "poll" of "Poller" has incompatible type',
    'Item "None" of "RateLimiter | None" has no attribute "limit"',
    '"WrongConnector" has no attribute "streaming"',
]


def mypy(folder: Path, *files: Path) -> str:
    """What mypy says of files, in a cache of their own."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--hide-error-context", "--no-error-summary"]
    command += ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(folder / "cache"), *map(str, files)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


def test_the_examples_are_typed_and_what_a_connector_does_wrong_with_its_parts_is_found(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG)
    found = mypy(tmp_path, *EXAMPLES, wrong)
    said = [re.sub(r"^[^ ]+ error: |  \[[a-z-]+\]$", "", line) for line in found.splitlines() if ": error: " in line]
    assert [line for line in found.splitlines() if "error" in line and "wrong.py" not in line] == []
    assert len(said) == len(ERRORS), found
    for line, expected in zip(said, ERRORS, strict=True):
        assert expected in line

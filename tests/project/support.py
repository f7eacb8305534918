"""The files of the project, as version control knows them."""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


@functools.cache
def tracked() -> tuple[Path, ...]:
    """Every file of the project that is under version control, and exists."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


def sources(*suffixes: str, under: str = "") -> list[Path]:
    """Tracked files with one of these suffixes, in a folder."""
    return [path for path in tracked() if path.suffix in suffixes and path.is_relative_to(ROOT / under)]


def texts() -> dict[str, str]:
    """The tracked text files, by their name in the project."""
    found = {}
    for path in tracked():
        data = path.read_bytes()
        if b"\0" not in data[:8000]:
            found[str(path.relative_to(ROOT))] = data.decode("utf-8", "replace")
    return found


def found_in_texts(pattern: str) -> list[str]:
    """Where a regular expression matches, as file:line: text."""
    expression = re.compile(pattern)
    return [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if expression.search(line)
    ]

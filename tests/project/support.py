"""The files of the project, as version control knows them."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


@functools.cache
def tracked() -> tuple[Path, ...]:
    """Every file of the project: what is under version control, or, without git, what .gitignore does not leave out."""
    try:
        git = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
        names = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        left_out = {line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()} | {".git"}
        names = [str(path.relative_to(ROOT)) for path in _walk(ROOT, left_out)]
    return tuple(path for name in names if name and (path := ROOT / name).is_file())


def _walk(folder: Path, left_out: set[str]) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name not in left_out and not path.name.endswith(".egg-info"):
            if path.is_dir():
                yield from _walk(path, left_out)
            else:
                yield path


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

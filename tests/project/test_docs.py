"""What the pages tell people to type, and where they send them, exists."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from emp_trio.cli import _app
from emp_trio.services.registry import GROUP
from tests.project.support import ROOT, sources

PAGES = sources(".md")
_BLOCK = re.compile(r"^```(?:sh|console|bash)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def commands(page: Path) -> list[list[str]]:
    """The words of every shell command in a page that calls us, after ``emp-trio`` or ``./run``."""
    found = []
    for block in _BLOCK.findall(page.read_text()):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            for at, word in enumerate(words):
                if word in ("emp-trio", "./run"):
                    found.append(words[at:])
                    break
    return found


def all_commands() -> list[tuple[str, list[str]]]:
    return [(str(page.relative_to(ROOT)), words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(
    ("page", "words"), all_commands(), ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_what_a_page_tells_people_to_type_exists(page: str, words: list[str]) -> None:
    if words[0] == "./run":
        listed = subprocess.run([ROOT / "run", "help"], capture_output=True, text=True, check=True).stdout
        assert re.search(rf"^  {re.escape(words[1])}\s", listed, re.MULTILINE) or words[1] == "help"
        words = words[1:] if words[1] in ("emp-trio", "demo") else []
    words = words[1:] if words[:1] == ["emp-trio"] else words
    if not words or words[0].startswith("-"):
        return
    words = list(itertools.takewhile(lambda word: word not in ("|", ">", "&", "&&", ";"), words))
    if "..." not in words:
        _app(words).parse_args(words, exit_on_error=False, print_error=False)  # raises for what there is not


def test_the_readme_has_the_two_commands() -> None:
    typed = [words for words in commands(ROOT / "README.md") if words[0] == "./run"]
    assert ["./run", "demo"] in typed
    assert ["./run", "test"] in typed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_where_a_page_sends_people_exists(page: Path) -> None:
    for link in _LINK.findall(re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        if not link.startswith(("http://", "https://", "#", "mailto:")):
            assert (page.parent / link.partition("#")[0]).exists(), f"{page.name}: {link}"


def test_every_page_can_be_found_from_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in sources(".md", under="docs"):
        if page.name != "README.md":
            assert f"({page.relative_to(ROOT / 'docs')}" in index, f"docs/README.md does not lead to {page.name}"


_CODE = re.compile(r"^```(python|json|toml)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def lines_of(text: str) -> str:
    """A text without its indentation, which an excerpt may have lost."""
    return "\n".join(line.strip() for line in text.strip().splitlines())


@pytest.mark.parametrize(
    ("kind", "code"), _CODE.findall((ROOT / "docs" / "write-a-connector.md").read_text()), ids=lambda text: text[:40]
)
def test_the_code_that_authors_read_is_that_of_the_example(kind: str, code: str) -> None:
    if kind == "toml":
        (place,) = tomllib.loads(code)["project"]["entry-points"][GROUP].values()
        module, _, name = place.partition(":")
        assert f"class {name}(" in (ROOT / "examples" / f"{module}.py").read_text()
        return
    files = [path for path in sources(".py", ".json", under="examples") if "atelier" in path.name]
    assert any(lines_of(code) in lines_of(path.read_text()) for path in files)


def test_the_connector_that_authors_read_is_short() -> None:
    assert len((ROOT / "examples" / "atelier.py").read_text().splitlines()) < 120


@pytest.mark.parametrize("script", ["run", ".ci/run"])
def test_the_scripts_can_be_run(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o111 == 0o111
    shell = path.read_text().splitlines()[0].removeprefix("#!").split()[-1].rpartition("/")[2]
    subprocess.run([shell, "-n", path], check=True)

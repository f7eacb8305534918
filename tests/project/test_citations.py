"""A source that the code cites is one that its reader can open."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.project.support import ROOT, sources

PAGES = {
    "queue protocol": "queue-protocol.md",
    "connector reference": "connectors.md",
    "mapping reference": "service-mapping.md",
    "OpenAI reference": "openai.md",
    "Gemini reference": "gemini-ollama.md",
    "Ollama reference": "gemini-ollama.md",
    "ComfyUI reference": "comfyui-a1111.md",
    "A1111 reference": "comfyui-a1111.md",
    "real servers": "real-servers.md",
}
_NUMBER = r"[AB]?\d+(?:\.\d+)*"
_CITATION = re.compile(
    rf"\b({'|'.join(PAGES)})(?:,? sections?)? ({_NUMBER}(?:(?:, | and | to |, and ){_NUMBER})*)".replace(
        " ", r"[\s#\-]+"
    )
)
_BARE = re.compile(
    rf"(?<!connector )(?<!mapping )(?<!OpenAI )(?<!Gemini )(?<!Ollama )(?<!UI )(?<!1111 )\breference {_NUMBER}"
)
_HEADING = re.compile(rf"^#+ ({_NUMBER})\.? ", re.MULTILINE)
FILES = [
    path for folder in ("emp_trio", "tests") for suffix in (".py", ".lua") for path in sources(suffix, under=folder)
]


def sections(page: str) -> set[str]:
    """Numbers of a page's sections, and of the items of the numbered lists in them (6.1 is the first one of 6)."""
    found, inside = set(), ""
    for line in (ROOT / "docs" / "reference" / page).read_text().splitlines():
        if line.startswith("#"):
            heading = _HEADING.match(line)
            inside = heading[1] if heading else ""
            found.add(inside)
        elif item := re.match(r"(\d+)\. ", line):
            found.add(f"{inside}.{item[1]}")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_cited_section_exists(file: Path) -> None:
    text = file.read_text()
    for name, numbers in _CITATION.findall(text):
        name = " ".join(name.replace("#", " ").replace("--", " ").split())
        missing = set(re.findall(_NUMBER, numbers)) - sections(PAGES[name])
        assert not missing, f"{name} has no section {', '.join(sorted(missing))}"
    assert not (bare := _BARE.findall(text)), f"of which page? {bare}"

"""Rules of the house that no other tool checks."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import emp_trio
from tests.project.support import ROOT, found_in_texts, sources

PACKAGE = sources(".py", under="emp_trio")


def test_no_file_is_long() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in sources(".py", ".lua")}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > 500} == {}


def undocumented(path: Path) -> Iterator[str]:
    """Public names of a module that have no docstring; what overrides a documented method needs none of its own."""
    module = ast.parse(path.read_text())
    if not ast.get_docstring(module) and module.body:
        yield "the module"
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield node.name
            if isinstance(node, ast.ClassDef):
                bases = [base for base in node.bases if not (isinstance(base, ast.Name) and base.id == "Protocol")]
                for method in node.body:
                    if (
                        isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
                        and not method.name.startswith("_")
                        and not ast.get_docstring(method)
                        and not bases
                    ):
                        yield f"{node.name}.{method.name}"


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_public_name_is_documented(path: Path) -> None:
    assert list(undocumented(path)) == []


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_opens_with_one_plain_sentence(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    if docstring is None:  # only an empty module has none: see the test before
        return
    summary = docstring.splitlines()[0]
    assert summary.endswith(".")
    assert len(summary) <= 120
    assert not re.match(r"(What|How|Which|Where|When|Who|Why|Whether)\b", summary), "say what the module does or has"


def test_asyncio_is_known_in_one_place() -> None:
    knows = set()
    for path in PACKAGE:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] in ("asyncio", "trio_asyncio", "anyio") for name in names):
                knows.add(str(path.relative_to(ROOT).parent))
    assert knows == {"emp_trio/queue/bridge"}


def test_what_is_private_in_redis_py_is_used_in_one_place() -> None:
    private = re.compile(r"redis\.[\w.]*\b_(?!_)|\bconnection\._|(?<!self)\._(writer|reader|parser|sock|buffer)\b")
    knows = set()
    for path in PACKAGE:
        text = path.read_text()
        if re.search(r"^(from|import) redis\b", text, re.MULTILINE) and private.search(text):
            knows.add(str(path.relative_to(ROOT)))
    assert knows == {"emp_trio/queue/bridge/redis_py.py"}


# Documented all the same, in spite of the underscore.
PUBLIC = {"_current_frames", "_replace", "_Decompress"}


def private_of_others(path: Path) -> set[str]:
    """Private attributes that a module reads or sets without defining them, and private modules that it imports."""
    module = ast.parse(path.read_text())
    own, used = set(PUBLIC), set()
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            own.add(node.target.id)
        elif isinstance(node, ast.Attribute):
            ours = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            (own if ours else used).add(node.attr)
        elif isinstance(node, ast.ImportFrom) and node.module:
            used.update(node.module.split(".")[1:])
    return {name for name in used - own if name.startswith("_") and not name.startswith("__")}


def test_what_is_private_to_a_library_is_touched_only_in_the_modules_that_say_why() -> None:
    found = {str(path.relative_to(ROOT)): names for path in PACKAGE if (names := private_of_others(path))}
    assert found == {
        "emp_trio/assets/stores/providers/gcs/store.py": {"_bucket_metadata_cache"},
        "emp_trio/protocols/http/httpcore_lock.py": {"_state_lock"},
        "emp_trio/queue/bridge/redis_py.py": {"_reader", "_writer"},
        "emp_trio/queue/embedded.py": {"_binary"},
    }


# Each pattern is written so that it does not match itself.
@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(r"(?i)https?://[^ ]*(p[y]pi|p[y]thonhosted|n[p]mjs|d[e]bian)\.", id="a package registry"),
        pytest.param(r"(^|[^\w.])/(w[o]rk|f[a]rm|r[o]ot|h[o]me|U[s]ers)/", id="a path of somebody's machine"),
        pytest.param(r"\.\./shar[e]d", id="a folder outside of the project"),
        pytest.param(r"(?i)sub-?ag[e]nt|cl[a]ude|session n[o]te", id="the tools it was written with"),
    ],
)
def test_no_file_speaks_of(pattern: str) -> None:
    assert found_in_texts(pattern) == []


def test_the_pinned_dependencies_have_hashes_and_no_addresses() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert "://" not in text
    assert "--index" not in text
    requirements = [line for line in re.sub(r"\\\n", "", text).splitlines() if line]
    for line in requirements:
        assert re.match(r"[a-z0-9-]+==\S+ ", line), line
        assert "--hash=sha256:" in line, line


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    from packaging.requirements import Requirement
    from packaging.version import Version

    pinned = dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()]
    groups += project["dependency-groups"].values()
    for text in [item for group in groups for item in group if isinstance(item, str)]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(Version(pinned[requirement.name])), text


def test_the_changelog_tells_of_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[?([^\]\s]+)\]?", text, re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert versions[1] == emp_trio.__version__
    assert set(re.findall(r"^### (.*)", text, re.MULTILINE)) <= {
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    }


def test_the_version_is_the_same_everywhere() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == emp_trio.__version__

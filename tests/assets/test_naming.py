"""Names: found again by a retry, safe whatever the submitter says."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.assets.naming import LONGEST_KEY, asset_name, check_names, owner_mark, safe_id
from emp_trio.assets.stores.providers.local.store import LocalStore
from emp_trio.errors import InvalidJob
from tests.assets.support import a_job


@pytest.mark.parametrize(
    ("ctx", "index", "kind", "key"),
    [
        ({}, 0, "image/png", "job-1_0.png"),
        ({}, 3, "image/png", "job-1_3.png"),
        ({"prefix": "a/b"}, 0, "image/png", "a/b/job-1_0.png"),
        ({"prefix": "a/b/"}, 0, "image/png", "a/b/job-1_0.png"),
        ({"workflow_attempt": 2}, 0, "image/png", "job-1_0_r2.png"),
        ({"filename": "cat.jpeg"}, 0, "image/png", "cat.png"),  # the extension is that of the real format
        ({"filename": "cat"}, 0, "video/mp4", "cat.mp4"),
        ({"filename": "v1.2 final"}, 0, "image/png", "v1.png"),  # the fleet's rule: what follows the last dot goes
        ({"filename": "cat.png"}, 2, "image/png", "cat_2.png"),
        ({"filename": "cat.png", "workflow_attempt": 3}, 0, "image/png", "cat.png"),
        ({"filename": "v.1/cat", "prefix": "p/"}, 0, "image/png", "p/v.1/cat.png"),
        ({"filename": "日本.png"}, 0, "image/webp", "日本.webp"),
    ],
)
def test_names(ctx: dict[str, object], index: int, kind: str, key: str) -> None:
    assert asset_name(a_job(**ctx), index, kind).key == key


def test_the_attempt_does_not_change_the_name() -> None:
    first = a_job()
    second = msgspec.structs.replace(first, attempt=7, retry_count=2)
    assert asset_name(first, 0, "image/png") == asset_name(second, 0, "image/png")


BAD = [
    "..",
    "../x",
    "a/../../x",
    "/etc/passwd",
    "C:/windows",
    "a\\b",
    "a\x00b",
    "a\nb",
    "a\x7fb",
    "a\u2028b",
    "a\ud800b",
    "a//b",
    "a/./b",
    "a./b",
    "a /b",
    " a",
    "a.",
    ".emp-trio-x",
    "x" * 2048,
    "ä" * 600,
    "x" * 300,
]


@pytest.mark.parametrize("text", BAD)
@pytest.mark.parametrize("field", ["prefix", "filename"])
def test_unsafe_names_are_refused_and_named(field: str, text: str) -> None:
    job = a_job(**{field: text})
    for call in (lambda: check_names(job), lambda: asset_name(job, 0, "image/png")):
        with pytest.raises(InvalidJob, match=rf"ctx\.{field}") as caught:
            call()
        assert not caught.value.retry
        assert len(caught.value.message) < 300


@pytest.mark.parametrize("text", ["a/", "/", ".png"])
def test_a_filename_needs_a_name(text: str) -> None:
    with pytest.raises(InvalidJob, match="filename"):
        check_names(a_job(filename=text))


def test_prefix_and_filename_together_have_a_limit() -> None:
    with pytest.raises(InvalidJob, match="1024 are allowed"):
        asset_name(a_job(prefix="/".join(["p" * 200] * 5), filename="x" * 100), 0, "image/png")


anything = st.text(max_size=40) | st.text(alphabet="./\\ aä\x00:~%?#-_", max_size=12) | st.sampled_from(BAD)


@given(
    job_id=anything,
    prefix=st.none() | anything,
    filename=st.none() | anything,
    index=st.integers(0, 10**6),
    rerun=st.integers(0, 10**30),
)
def test_no_name_leaves_its_place(
    job_id: str, prefix: str | None, filename: str | None, index: int, rerun: int
) -> None:
    job = a_job(job_id, prefix=prefix or None, filename=filename or None, workflow_attempt=rerun)
    try:
        name = asset_name(job, index, "image/png")
    except InvalidJob:
        assert prefix or filename  # a name of ours is always possible
        return
    assert len(name.key.encode()) <= LONGEST_KEY
    assert name.key.endswith(".png")
    assert name.key.startswith((prefix or "").rstrip("/"))
    assert not {"", ".", ".."} & set(name.key.split("/"))
    assert not re.search(r"[\x00-\x1f\\]", name.key)
    folder = Path("/assets")
    store = LocalStore(folder)
    assert store.url(name.key).startswith("file:///assets/")


@given(st.lists(st.text(max_size=150), min_size=2, max_size=2, unique=True))
def test_different_jobs_have_different_marks_and_names(ids: list[str]) -> None:
    one, other = ids
    assert owner_mark(one) != owner_mark(other)
    assert safe_id(one) != safe_id(other)
    assert owner_mark(one).isascii()
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,120}", safe_id(one))


def test_no_id_is_the_mark_of_another() -> None:
    assert owner_mark(owner_mark("x" * 500)) != owner_mark("x" * 500)

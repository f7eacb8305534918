"""JSON pointers: the examples of RFC 6901, its borders, and the way there and back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.services.rest.pointers import POINTER_PATTERN, pointed, steps

DOCUMENT: dict[str, Any] = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "m~n": 8,
    "~1": 9,
    "deep": {"list": [{"url": "here"}], "0": "a name"},
}
NOWHERE = msgspec.UNSET

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [
        ("", DOCUMENT),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/m~0n", 8),
        ("/~01", 9),
        ("/deep/list/0/url", "here"),
        ("/deep/0", "a name"),
        ("foo", ["bar", "baz"]),
        ("c%d", 2),
        ("/foo/2", NOWHERE),
        ("/foo/-", NOWHERE),
        ("/foo/00", NOWHERE),
        ("/foo/-1", NOWHERE),
        ("/foo/+1", NOWHERE),
        ("/foo/\u0661", NOWHERE),
        ("/foo/" + "9" * 5000, NOWHERE),
        ("/foo/0/x", NOWHERE),
        ("/missing", NOWHERE),
        ("missing", NOWHERE),
    ],
)
def test_a_pointer_finds_its_value(pointer: str, expected: Any) -> None:
    found = pointed(DOCUMENT, pointer)
    assert found is expected if expected is NOWHERE else found == expected


@pytest.mark.parametrize("pointer", ["foo/bar", "/a~", "/a~2", "/~", "/~~01", "a~0"])
def test_what_is_no_pointer_is_refused(pointer: str) -> None:
    with pytest.raises(ValueError, match="pointer"):
        steps(pointer)


@given(st.text(alphabet=st.sampled_from("/~01ab\n")))
def test_settings_take_what_can_be_read(pointer: str) -> None:
    fits = re.search(POINTER_PATTERN, pointer) is not None
    try:
        steps(pointer)
    except ValueError:
        assert not fits
    else:
        assert fits


@given(JSON)
def test_every_place_of_a_document_can_be_pointed_to(document: Any) -> None:
    for pointer, value in places(document):
        assert pointed(document, pointer) is value


@given(JSON, st.lists(st.text()))
def test_no_pointer_fails_on_any_document(document: Any, names: list[str]) -> None:
    pointed(document, "".join(f"/{escaped(name)}" for name in names))


def places(document: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    yield pointer, document
    if isinstance(document, dict):
        for name, item in document.items():
            yield from places(item, f"{pointer}/{escaped(name)}")
    elif isinstance(document, list):
        for index, item in enumerate(document):
            yield from places(item, f"{pointer}/{index}")


def escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")

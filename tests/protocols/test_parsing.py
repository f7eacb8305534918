"""Answers as structs: strict where nothing else is said, lenient where a field is marked so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import ServiceError
from emp_trio.protocols.parsing import Lenient, NoObject, parse, parse_or_empty
from emp_trio.protocols.wire_json import decode_json


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a service that writes numbers where it should write nothing."""

    name: str
    size: Lenient[Annotated[int, msgspec.Meta(ge=0)] | None] = None
    tags: Lenient[list[Lenient[str]]] = []


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of work."""

    id: str
    state: Lenient[str] = "unknown"
    files: Lenient[list[Lenient[File]] | File] = []
    by_name: Lenient[dict[str, Lenient[File]]] = msgspec.field(name="byName", default_factory=dict)
    raw: Any = None


@pytest.mark.parametrize(
    ("value", "work"),
    [
        ({"id": "a"}, Work(id="a")),
        ({"id": "a", "new": [1], "raw": {"x": float}}, Work(id="a", raw={"x": float})),
        ({"id": "a", "state": 7}, Work(id="a")),
        ({"id": "a", "state": None, "files": None}, Work(id="a")),
        ({"id": "a", "files": {"name": "f"}}, Work(id="a", files=File(name="f"))),
        ({"id": "a", "files": [{"name": "f"}, "g", {"name": 1}, None]}, Work(id="a", files=[File(name="f")])),
        ({"id": "a", "files": [{"name": "f", "size": -1}]}, Work(id="a", files=[File(name="f")])),
        ({"id": "a", "files": [{"name": "f", "size": "3"}]}, Work(id="a", files=[File(name="f")])),
        ({"id": "a", "files": {"name": "f", "tags": ["x", 1]}}, Work(id="a", files=File(name="f", tags=["x"]))),
        ({"id": "a", "byName": {"f": {"name": "f"}, "g": {}}}, Work(id="a", by_name={"f": File(name="f")})),
        ({"id": "a", "byName": [], "\ud83d": 1}, Work(id="a")),
    ],
)
def test_what_does_not_fit_a_lenient_field_counts_as_not_there(value: Any, work: Work) -> None:
    assert parse(Work, value, "the work") == work


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "the work: Object missing required field `id`"),
        ({"id": 7, "state": 7}, "the work: Expected `str`, got `int` - at `$.id`"),
        ([], "the work: Expected `object`, got `array`"),
        (None, "the work: Expected `object`, got `null`"),
    ],
)
def test_what_does_not_fit_any_other_field_is_named_by_its_path(value: Any, said: str) -> None:
    with pytest.raises(ServiceError) as caught:
        parse(Work, value, "the work")
    error = caught.value
    assert (error.message, error.type, error.reason) == (said, "response_error", "invalid_response_format")
    assert error.maybe_started


def test_what_is_something_else_altogether_can_be_taken_for_empty() -> None:
    assert parse_or_empty(File2, [1]) == File2()
    assert parse_or_empty(tuple[Lenient[File], ...], [{"name": "f"}, 1]) == (File(name="f"),)
    assert parse_or_empty(tuple[Lenient[File], ...], {"name": "f"}) == ()


class File2(msgspec.Struct, frozen=True):
    """A file of which nothing need be known."""

    name: str = ""


class Reply(msgspec.Struct, frozen=True):
    """An answer whose result has no form that is known beforehand."""

    result: File | NoObject = None


@pytest.mark.parametrize("result", [None, True, 7, 1.5, "x", [1, {"name": "f"}]])
def test_a_field_can_take_whatever_is_no_object_as_it_is(result: Any) -> None:
    assert parse(Reply, {"result": result}, "it") == Reply(result=result)
    assert parse(Reply, {"result": {"name": "f", "size": "x"}}, "it") == Reply(result=File(name="f"))


def test_texts_are_not_copied() -> None:
    text = "A" * 2**20
    work = parse(Work, {"id": text, "state": text, "files": [{"name": text}, 1]}, "the work")
    assert work.id is text
    assert work.state is text
    assert isinstance(work.files, list)
    assert work.files[0].name is text


class Unread(list[Any]):
    """A list into which nobody may look in Python."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("read one by one")


def test_what_has_no_lenient_places_is_not_looked_through() -> None:
    """A million numbers would take a second."""
    with pytest.raises(ServiceError, match=r"no vectors: .*`\$\[1\]\[0\]`"):
        parse(list[list[float]], Unread([Unread([0.5] * 10), Unread(["x"])]), "no vectors")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "state", "files", "byName", "name", "size", "tags", "\ud83d"]), inner)
    ),
    max_leaves=12,
)


@given(ANYTHING)
def test_any_value_is_read_or_refused(value: Any) -> None:
    for kind in (Work, File):
        try:
            made = parse(kind, value, "it")
        except ServiceError:
            continue
        assert isinstance(made, kind)
        assert msgspec.convert(msgspec.to_builtins(made), kind) == made


@given(ANYTHING)
def test_what_fits_strictly_is_read_as_msgspec_reads_it(value: Any) -> None:
    try:
        strictly = msgspec.convert(decode_json(msgspec.json.encode(value)), Work)
    except (msgspec.ValidationError, UnicodeEncodeError):
        return
    assert parse(Work, value, "it") == strictly

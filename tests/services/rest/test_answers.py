"""Answers that nobody has promised anything about."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import ServiceError
from emp_trio.services.rest.answers import error_text, read_id, read_result, read_state, wanted_result
from emp_trio.services.rest.settings import AnswerSettings, WorkSettings

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=4),
    max_leaves=12,
)
WORK = WorkSettings(status_at="/a", progress_at="/b", id_at="/a")
WRONG_IDS: list[Any] = ["", " ", ".", "..", None, True, 1.5, [], {}, "x" * 513, "a\nb", 10**600]
PLACES = AnswerSettings(result_at="/a", text_at="/b", files_at="/c", file_at="/a", error_at="/a")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [({"id": "w-1"}, "w-1"), ({"id": 17}, "17"), ({"id": "a/b?c"}, "a/b?c"), ({"id": -(10**30)}, str(-(10**30)))],
)
def test_an_id_is_read(answer: Any, expected: str) -> None:
    assert read_id(answer, "/id") == expected


@pytest.mark.parametrize(
    "answer",
    [
        *({"id": wrong} for wrong in WRONG_IDS),
        {},
        [],
        None,
        "id",
        5,
    ],
)
def test_no_id_is_an_error_of_the_service(answer: Any) -> None:
    with pytest.raises(ServiceError) as caught:
        read_id(answer, "/id")
    assert (caught.value.type, caught.value.maybe_started) == ("response_error", True)


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("Succeeded", "done"),
        ("DONE", "done"),
        ("failed", "failed"),
        ("Canceled", "cancelled"),
        ("cancelled", "cancelled"),
        ("queued", "running"),
        ("whatever", "running"),
        (3, "running"),
    ],
)
def test_usual_words_are_understood(status: Any, phase: str) -> None:
    assert read_state({"status": status}, WorkSettings()).phase == phase


def test_words_are_those_of_the_settings() -> None:
    work = WorkSettings(done_words=("true",), failed_words=("-1",), running_words=("false",), status_at="/over")
    assert [read_state({"over": word}, work).phase for word in (True, -1, False)] == ["done", "failed", "running"]
    with pytest.raises(ServiceError, match="'maybe' is none of the done_words") as caught:
        read_state({"over": "maybe"}, work)
    assert not caught.value.retry


@pytest.mark.parametrize(
    ("said", "share"),
    [(25, 0.25), (0.5, 0.005), (150, 1), (-3, 0), (10**400, 1), (True, None), ("25", None), (None, None)],
)
def test_progress_is_a_number_or_nothing(said: Any, share: float | None) -> None:
    answer = {"status": "running", "done": said}
    assert read_state(answer, WorkSettings(progress_at="/done")).share == share
    assert read_state({"status": "running"}, WorkSettings(progress_at="/done")).share is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ("one", ("one",)),
        (["one", "two"], ("one", "two")),
        ([{"url": "one"}, "two"], ("one", "two")),
        ({"url": "one"}, ("one",)),
    ],
)
def test_files_are_found(files: Any, expected: tuple[str, ...]) -> None:
    assert read_result({"f": files}, AnswerSettings(files_at="/f", file_at="/url")).files == expected


@pytest.mark.parametrize("files", [[], None, "", [""], [None], [{"uri": "one"}], 5, [1, 2], {}])
def test_files_that_are_none_are_an_error_of_the_service(files: Any) -> None:
    with pytest.raises(ServiceError, match="a file, or a list of files, is wanted at '/f'"):
        read_result({"f": files}, AnswerSettings(files_at="/f", file_at="/url"))


def test_a_file_among_others_that_is_none_keeps_its_place() -> None:
    """So that it can be said which one is missing."""
    assert read_result({"f": ["one", 2, {}]}, AnswerSettings(files_at="/f", file_at="/url")).files == ("one", "", "")


def test_a_file_is_enough_where_text_and_result_are_missing() -> None:
    places = AnswerSettings(files_at="/f", text_at="/t", result_at="/r")
    found = read_result({"f": "one", "t": None}, places)
    assert (found.files, found.text, found.result) == (("one",), None, None)
    assert [("a text" in line, "a result" in line) for line in found.missing] == [(False, True), (True, False)]
    with pytest.raises(ServiceError, match="a file"):
        read_result({"t": "words", "r": 1}, places)


def test_more_files_than_anybody_wants_are_not_fetched() -> None:
    places = AnswerSettings(files_at="/f")
    assert len(read_result({"f": ["u"] * 100}, places).files) == 100
    with pytest.raises(ServiceError, match="101 files are more than the 100") as caught:
        read_result({"f": ["u"] * 101}, places)
    assert not caught.value.retry


def test_no_file_bytes_stay_in_a_result() -> None:
    found = read_result({"img": "QUJD" * 200, "n": 1}, AnswerSettings())
    assert found.result == {"img": "<base64 data, 600 bytes>", "n": 1}


def test_an_answer_that_is_deeper_than_anybody_looks() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert "nested too deeply" in str(read_result({"d": deep}, AnswerSettings()).result)
    assert "nested too deeply" in error_text({"d": deep}, "/d")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"why": "no\n clay"}, "no clay"),
        ({"why": {"code": 5}}, '{"code":5}'),
        ({"why": "x" * 9999}, "x" * 400),
        ({"why": None}, ""),
        ({}, ""),
        ([], ""),
    ],
)
def test_the_text_of_an_error(answer: Any, text: str) -> None:
    assert error_text(answer, "/why") == text
    assert error_text(answer, None) == ""


@given(JSON)
def test_no_answer_brings_anything_but_an_error_of_the_service(answer: Any) -> None:
    for read in (
        lambda: read_id(answer, WORK.id_at),
        lambda: read_state(answer, WORK),
        lambda: read_result(answer, PLACES),
        lambda: error_text(answer, PLACES.error_at),
    ):
        with suppress(ServiceError):
            msgspec.json.encode(read())


@pytest.mark.parametrize("nothing", [None, "", " \n", {}, []])
def test_a_success_has_something_in_it(nothing: Any) -> None:
    whole, text = AnswerSettings(), AnswerSettings(text_at="/b")
    for answer, places in ((nothing, whole), ({"a": nothing}, AnswerSettings(result_at="/a"))):
        with pytest.raises(ServiceError, match="wanted at"):
            wanted_result(answer, places)
    with pytest.raises(ServiceError, match="text"):
        wanted_result({"b": nothing, "c": 1}, text)
    for something in (0, False, 0.0, "x", [0], {"a": None}):
        assert wanted_result(something, whole).result == something

"""Bodies from templates: what is put in, what is left out, what is refused, and that a payload is never a template."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import InvalidJob
from emp_trio.services.rest.templates import check_template, fill
from tests.services.support import job

PAYLOAD: dict[str, Any] = {"prompt": "a cat", "options": {"steps": 0}, "seed": None, "tags": ["x"], "on": False}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["$payload", "$job", "$default", "$$", "a", "b"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ({"$payload": ""}, PAYLOAD),
        ({"text": {"$payload": "/prompt"}}, {"text": "a cat"}),
        ({"n": {"$payload": "/options/steps", "$default": 20}}, {"n": 0}),
        ({"on": {"$payload": "/on", "$optional": True}}, {"on": False}),
        ({"n": {"$payload": "/missing", "$default": {"$job": "id"}}}, {"n": {"$job": "id"}}),
        ({"n": {"$payload": "/seed", "$default": 7}}, {"n": 7}),
        ({"n": {"$payload": "/seed", "$optional": True}, "m": 1}, {"m": 1}),
        ([1, {"$payload": "/missing", "$optional": True}, {"$payload": "/tags/0"}], [1, "x"]),
        (
            {"by": {"$job": "id"}, "kind": {"$job": "type"}, "n": {"$job": "attempt"}},
            {"by": "j-7", "kind": "any", "n": 2},
        ),
        ({"$$ref": "x", "$$$": 1, "plain": None}, {"$ref": "x", "$$": 1, "plain": None}),
        ("as it is", "as it is"),
    ],
)
def test_a_template_is_filled(template: Any, expected: Any) -> None:
    check_template(template)
    assert fill(template, job(id="j-7", attempt=2), PAYLOAD) == expected


@pytest.mark.parametrize("place", ["/missing", "/seed", "/prompt/0", "/tags/1"])
def test_what_must_be_there_is_missed(place: str) -> None:
    with pytest.raises(InvalidJob, match=f"nothing at {place}") as caught:
        fill({"deep": [{"$payload": place}]}, job(), PAYLOAD)
    assert caught.value.reason == "missing_required_field"
    assert not caught.value.retry


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ({"a": {"$paylod": "/x"}}, "/a: an object with $paylod is no template"),
        ({"a": [{"$payload": "/x", "extra": 1}]}, "/a/0: an object with $payload, extra is no template"),
        ({"$default": 1}, "the whole body: an object with $default"),
        ({"a": {"$payload": "/x", "$default": 1, "$optional": True}}, "exclude each other"),
        ({"a": {"$payload": "/x", "$optional": "yes"}}, "$optional must be true or false"),
        ({"a": {"$payload": 5}}, "$payload must be a JSON pointer"),
        ({"a": {"$payload": "x/y"}}, "must begin with a slash"),
        ({"a": {"$job": "ctx"}}, "$job must be one of id, "),
        ({"a": {"$job": "id", "$payload": "/x"}}, "is no template"),
        ({"$payload": "/x", "$optional": True}, "can't be $optional"),
    ],
)
def test_a_mistake_is_found_before_there_is_a_job(template: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        check_template(template)


@given(JSON)
def test_what_a_payload_holds_is_put_in_as_it_is(value: Any) -> None:
    template = {"x": {"$payload": "/v", "$default": None}, "y": [{"$payload": ""}]}
    assert fill(template, job(), {"v": value}) == {"x": value, "y": [{"v": value}]}


@given(JSON)
def test_a_checked_template_always_fills_or_blames_the_job(template: Any) -> None:
    try:
        check_template(template)
    except ValueError:
        return
    with suppress(InvalidJob):
        fill(template, job(), PAYLOAD)

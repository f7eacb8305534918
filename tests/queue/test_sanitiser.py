"""Records without file bytes (queue protocol 5.5 and 8.4; beyond it arrays are looked into and URLs are left alone)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.queue.sanitiser import sanitised

REMOVED = "[BASE64_DATA_REMOVED]"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"image_base64": "abc"}, {"image_base64": "[BASE64_IMAGE_REMOVED]"}),
        ({"a": {"image_base64": "abc"}}, {"a": {"image_base64": "[BASE64_IMAGE_REMOVED]"}}),
        ({"image_base64": 5}, {"image_base64": 5}),
        ({"v": "A" * 99}, {"v": "A" * 99}),
        ({"v": "A" * 100}, {"v": REMOVED}),
        ({"raw_output": "A" * 100 + "=="}, {"raw_output": REMOVED}),
        ({"v": "see " + "+/Zz" * 30 + "= here"}, {"v": f"see {REMOVED} here"}),
        ({"v": "data:image/png;base64," + "A" * 200}, {"v": "data:image/png;base64," + REMOVED}),
        ({"c": ["B" * 150]}, {"c": [REMOVED]}),
        ({"c": [["B" * 150, 1, None], {"d": "C" * 100}]}, {"c": [[REMOVED, 1, None], {"d": REMOVED}]}),
        ({"j": '{"image_base64":"zz"}'}, {"j": '{"image_base64":"[BASE64_IMAGE_REMOVED]"}'}),
        ({"j": ' [{"x":"' + "D" * 120 + '"}] '}, {"j": '[{"x":"' + REMOVED + '"}]'}),
        ({"j": '{"image_base64": broken}'}, {"j": '{"image_base64": broken}'}),
        ({"j": "{" + "E" * 100 + "}"}, {"j": "{" + REMOVED + "}"}),
        ({"url": "https://cdn/" + "E" * 120 + ".png"}, {"url": "https://cdn/" + "E" * 120 + ".png"}),
        ({"url": "https://cdn/a.png " + "E" * 120}, {"url": "https://cdn/a.png " + REMOVED}),
        ("F" * 200, REMOVED),
        (["image_base64"], ["image_base64"]),
    ],
)
def test_values_of_the_table(value: Any, expected: Any) -> None:
    assert json.loads(sanitised(json.dumps(value).encode())) == expected


@pytest.mark.parametrize("text", ['{"a": 1, "b": [ ] }', "[ 1,2 ]", '{"image_base64": 7}'])
def test_json_in_a_text_keeps_its_form_where_nothing_is_removed(text: str) -> None:
    value = {"image_base64": "x", "j": text}
    assert json.loads(sanitised(json.dumps(value).encode()))["j"] == text


def test_longer_runs_may_be_allowed() -> None:
    value = {"sha512": "a" * 128, "file": "b" * 5000}
    assert json.loads(sanitised(json.dumps(value).encode(), shortest=4096)) == {"sha512": "a" * 128, "file": REMOVED}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_what_has_no_file_bytes_stays_as_it_is(value: Any) -> None:
    assert json.loads(sanitised(json.dumps(value, ensure_ascii=False).encode())) == value


@given(JSON, st.integers(100, 400))
def test_nothing_long_is_left_wherever_it_was(value: Any, length: int) -> None:
    blob = "Qk0" * length
    for hidden in (blob, [blob], {"k": blob}, [[{"k": [blob]}]], json.dumps({"k": [blob]})):
        assert "Qk0" * 30 not in sanitised(json.dumps([value, hidden], ensure_ascii=False).encode())


def test_a_large_result_takes_linear_time() -> None:
    blob = "A" * (8 * 2**20)
    assert json.loads(sanitised(json.dumps({"x": [blob, "{" * 1000]}).encode()))["x"][0] == REMOVED

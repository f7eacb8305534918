"""Tool calls put together from the pieces in which real servers send them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.services.openai.chat.tool_calls import ToolCalls


def call(id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def piece(name: str | None = None, arguments: Any = None, **more: Any) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {"function": function} | more


F, G = call("a", "f", '{"x": 1}'), call("b", "g", '{"y": 2}')
AGAIN = call("b", "f", '{"x": 2}')
NAMELESS_F, NAMELESS_G = F | {"id": ""}, G | {"id": ""}


@pytest.mark.parametrize(
    ("pieces", "calls"),
    [
        # one index for all of them, or none: an id begins a call
        ([F | {"index": 0}, G | {"index": 0}], [F, G]),
        ([F | {"index": 0}, AGAIN | {"index": 0}], [F, AGAIN]),
        ([F, G], [F, G]),
        ([F | {"index": None}, G | {"index": None}], [F, G]),
        (
            [
                piece("f", "", id="a", index=0),
                piece(None, '{"x"', index=0),
                piece(None, ": 1}", index=0),
                piece("g", "", id="b", index=0),
                piece(None, '{"y": 2}', index=0),
            ],
            [F, G],
        ),
        ([piece("f", "", id="a"), piece(None, '{"x": 1}'), piece("g", "", id="b"), piece(None, '{"y": 2}')], [F, G]),
        (
            [piece("f", "", id="a", index=0), piece("f", "{}", id="b", index=0)],
            [call("a", "f", ""), call("b", "f", "{}")],
        ),
        ([piece("f", '{"x"', id="a"), piece(None, "{}", id="b")], [call("a", "f", '{"x"'), call("b", "", "{}")]),
        # the index as a text
        ([piece("f", '{"x"', id="a", index="0"), G | {"index": "1"}, piece(None, ": 1}", index="0")], [F, G]),
        # the id and the name in every piece
        ([piece("f", '{"x"', id="a", index=0), piece("f", ": 1}", id="a", index=0)], [F]),
        ([piece("f", '{"x"', id="a"), G, piece(None, ": 1}", id="a")], [F, G]),
        ([piece("f", '{"x"', index=0, id="a"), piece("f", ": 1}", index=0, id="")], [F]),
        # the id comes late
        ([piece("f", "", index=0), piece(None, '{"x": 1}', index=0, id="a")], [F]),
        # the name in pieces, or ever longer
        ([piece("get_", id="a", index=0), piece("time", "{}", index=0)], [call("a", "get_time", "{}")]),
        ([piece("get_", id="a", index=0), piece("get_time", "{}", index=0)], [call("a", "get_time", "{}")]),
        # no ids at all
        ([NAMELESS_F | {"index": 0}, NAMELESS_G | {"index": 1}], [NAMELESS_F, NAMELESS_G]),
        ([NAMELESS_F, NAMELESS_G], [NAMELESS_F, NAMELESS_G]),
        ([NAMELESS_F | {"index": 0}, NAMELESS_G | {"index": 0}], [NAMELESS_F, NAMELESS_G]),
        ([NAMELESS_F, AGAIN | {"id": ""}], [NAMELESS_F, AGAIN | {"id": ""}]),
        # arguments as an object, and all of them once more at the end
        ([piece("f", {"x": 1}, id="a", index=0)], [call("a", "f", '{"x":1}')]),
        ([F, F], [F]),
        ([piece("f", '{"x"', id="a"), piece(None, ": 1}"), piece("f", '{"x": 1}', id="a")], [F]),
        # name and arguments in the call itself
        ([{"id": "a", "name": "f", "arguments": '{"x": 1}'}], [F]),
        # tools of another kind, and members of other vendors
        (
            [
                {"id": "a", "type": "custom", "custom": {"name": "f", "input": "x"}},
                {"id": "a", "custom": {"input": "y"}},
            ],
            [{"id": "a", "type": "custom", "custom": {"name": "f", "input": "xy"}}],
        ),
        ([F | {"extra_content": {"signature": "s"}}], [F | {"extra_content": {"signature": "s"}}]),
        ([F | {"id": 7}], [F | {"id": "7"}]),
    ],
)
def test_pieces_become_the_calls_that_they_are_of(pieces: list[Any], calls: list[Any]) -> None:
    found = ToolCalls()
    for one in pieces:
        found.add(one)
    assert list(found.calls) == calls


def test_calls_of_a_whole_answer_are_calls_each() -> None:
    given = [F, F, NAMELESS_F, piece("f", {"x": 1}, id="a")]
    assert list(ToolCalls(given).calls) == [F, F, NAMELESS_F, call("a", "f", '{"x":1}')]


@given(st.lists(st.text("{[]\"'x:1 ", max_size=6), max_size=30))
def test_arguments_are_never_changed(pieces: list[str]) -> None:
    found = ToolCalls()
    found.add(piece("f", "", id="a", index=0))
    for one in pieces:
        found.add(piece(None, one, index=0))
    assert found.calls[0]["function"]["arguments"] == "".join(pieces)


def test_many_small_pieces_take_linear_time() -> None:
    found = ToolCalls()
    found.add(piece("f", "", id="a", index=0))
    for _ in range(200_000):
        found.add(piece(None, "x{}", index=0))
    assert len(found.calls[0]["function"]["arguments"]) == 600_000

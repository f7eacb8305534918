"""What is secret does not show, whatever form it takes in a text."""

from __future__ import annotations

import copy
import pickle

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emp_trio.secrets import Redactor, Secret
from emp_trio.secrets.shapes import without_shapes


def test_a_secret_shows_only_where_it_is_revealed() -> None:
    secret = Secret("correct-horse")
    shown = [str(secret), repr(secret), f"{secret}", f"{secret!r:>30}", "%s" % secret, repr({"key": [secret]})]  # noqa: UP031
    assert all("horse" not in text and "***" in text for text in shown)
    assert secret.reveal() == "correct-horse"
    assert (secret == Secret("correct-horse"), secret == "correct-horse", bool(Secret(""))) == (True, False, False)
    for leak in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="not pickled"):
            leak(secret)
    with pytest.raises(TypeError):
        msgspec.json.encode(secret)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("key sk-abcdefgh12345 was refused", "key sk-*** was refused"),
        ("the key AIzaSyD-0123456789abcdef_ghijklmnopqrst is blocked", "the key AIza*** is blocked"),
        ("Authorization: Bearer abc.def-123=", "Authorization: Bearer ***"),
        ("redis://user:p4ss@host:6379/0", "redis://user:***@host:6379/0"),
        ("rediss://:p4ss@host", "rediss://:***@host"),
        ("AccountName=a;AccountKey=aGVsbG8=;End", "AccountName=a;AccountKey=***;End"),
        ("https://x/y?sv=1&sig=abc%2F&se=2", "https://x/y?sv=1&sig=***&se=2"),
        ("https://x/y?key=abc", "https://x/y?key=***"),
        ("a risk-free sk-ill, https://host:80/path?monkey=1", "a risk-free sk-ill, https://host:80/path?monkey=1"),
    ],
)
def test_shapes_that_are_secret_wherever_they_stand(text: str, shown: str) -> None:
    assert Redactor().text(text) == shown
    assert Redactor().data({text: [text, (text,)]}) == {shown: [shown, [shown]]}


def test_known_secrets_go_and_shapes_stay_where_only_the_known_ones_are_meant() -> None:
    redactor = Redactor([Secret("correct-horse"), Secret("abc")])
    assert redactor.text("correct-horse and abc") == "*** and abc"  # three letters would blank out words
    assert redactor.known("correct-horse at https://x?sig=1") == "*** at https://x?sig=1"
    assert redactor.data({"a": Secret("x"), "b": 1}) == {"a": "***", "b": 1}


def test_of_two_secrets_the_longer_goes_first() -> None:
    assert Redactor([Secret("horse"), Secret("horse-battery")]).text("horse-battery, horse") == "***, ***"


def test_a_secret_is_known_until_everybody_has_taken_it_back() -> None:
    redactor, secret = Redactor(), Secret('with "quotes"')
    redactor.add(secret)
    redactor.add(secret)
    redactor.forget(secret)
    assert redactor.text('with "quotes"') == "***"
    redactor.forget(secret)
    assert redactor.text('with "quotes"') == 'with "quotes"'


@given(st.text(min_size=4).filter(lambda value: "*" not in value), st.text(), st.text())
def test_no_known_secret_is_left_in_a_text_or_in_json(value: str, before: str, after: str) -> None:
    redactor = Redactor([Secret(value)])
    assert value not in redactor.known(before + value + after)
    shown = redactor.known(msgspec.json.encode([before + value + after, {value: value}]).decode())
    assert msgspec.json.encode(value).decode()[1:-1] not in shown


_BEGINNINGS = """api_key Api-KEY password Secret token ?sig &SIGNATURE ?x-amz-signature sk- AIza hf_ ghp_ ghu_
github_pat_ xoxb- eyJ Bearer bearer bASIC Basic BEARER redis:// user:""".split()
_BETWEEN = ["", "=", " = ", '="', '":"', "': '", '\\": \\"', " ", "%20", "+", "\\", "@"]


@given(
    st.lists(
        st.tuples(
            st.text(max_size=2),
            st.sampled_from(_BEGINNINGS),
            st.sampled_from(_BETWEEN),
            st.sampled_from(["abcdefghijklmnopqrst", "abcdefgh.0123456789-_", "pw@host", '"', ""]),
        ).map("".join),
        max_size=2,
    ).map("".join)
)
@example("Bearer abcdefgh")
@example("bearer abcdefgh")
@example("'token': 'abcdefgh'")
@example("xoxb-abcdefghijklmnopqrst")
@example("hf_abcdefghijklmnopqrst")
@example("eyJabcdefgh.0123456789")
@example("AIzaabcdefghijklmnopqrst")
@example("github_pat_abcdefghijklmnopqrst")
def test_a_short_text_is_looked_through_like_a_long_one(text: str) -> None:
    assert without_shapes(text) == without_shapes(". " * 600 + text)[2 * 600 :]

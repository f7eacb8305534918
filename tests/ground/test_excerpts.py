"""Secrets are masked before a text is cut, in every encoding that is usual, wherever they stand in it."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable
from functools import partial
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emp_trio.secrets import Redactor, Secret, excerpt, excerpt_around, held
from emp_trio.secrets.credentials import named_secrets, secrets_in, url_secrets
from emp_trio.services.redaction import redacted
from emp_trio.sizes import LARGE

KEY = "kJ7-x_Qw9ZpLm3Rt5Vb8Nc2Df4Gh6JsAqW1eRtYu0oP"  # 43 characters, as in the report
ODD = "p/ss+w=rd&<%>\"' \\ü"
PIECES = [KEY[i : i + 12] for i in range(len(KEY) - 11)]

NAMED = {"/": "&sol;", "+": "&plus;", "=": "&equals;", "&": "&amp;", "<": "&lt;", "_": "&lowbar;", "%": "&percnt;"}


def behind(count: int, text: str) -> str:
    """Base64 of a text that stands in a longer one."""
    return base64.b64encode(b"user:password"[:count] + text.encode() + b"!").decode()


ENCODINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "URL": lambda text: quote(text, safe=""),
    "URL, small letters": lambda text: re.sub("%..", lambda hit: hit[0].lower(), quote(text, safe="")),
    "URL, slashes stay": quote,
    "form": quote_plus,
    "URL, all of it": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON, Unicode": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "escapes": lambda text: "".join(f"\\u{ord(c):04x}" for c in text),
    "HTML": html.escape,
    "HTML, decimal apostrophe": lambda text: html.escape(text).replace("&#x27;", "&#39;"),
    "HTML, all of it": lambda text: "".join(f"&#{ord(c)};" for c in text),
    "HTML, hexadecimal": lambda text: "".join(f"&#x{ord(c):x};" for c in text),
    "HTML, capitals and zeros": lambda text: "".join(f"&#X{ord(c):04X};" for c in text),
    "HTML, all but letters": lambda text: "".join(c if c.isalnum() else f"&#{ord(c)};" for c in text),
    "HTML, by names": lambda text: "".join(NAMED.get(c, c) for c in text),
    "HTML, twice": lambda text: html.escape(html.escape(text)),
    "URL, three times": lambda text: quote(quote(quote(text, safe=""), safe=""), safe=""),
    "URL in HTML": lambda text: "".join(f"&#37;{byte:02x}" for byte in text.encode()),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text))[3:-3],
    "JSON for HTML": lambda text: re.sub(
        r"[<>&=+'/-]", lambda hit: f"\\u{ord(hit[0]):04X}", json.dumps(text, ensure_ascii=False)[1:-1]
    ),
    "Python": lambda text: repr(text.encode())[2:-1],
    "bytes": lambda text: "".join(f"\\x{byte:02x}" for byte in text.encode()),
    "hexadecimal": lambda text: text.encode().hex(),
    "hexadecimal, capitals": lambda text: text.encode().hex().upper(),
    **{f"base64 behind {n}": partial(behind, n) for n in range(6)},
    "base64, URL-safe": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
}


@pytest.mark.parametrize("secret", [KEY, ODD, "short-pw8", "abcd/1"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_known_secret_is_masked_in_the_usual_encodings(encoding: str, secret: str) -> None:
    text = ENCODINGS[encoding](secret)
    if len(secret) < 8 and ("64" in encoding):
        pytest.skip("too short to be found in base64: docs/security.md says so")
    shown = Redactor([Secret(secret)]).known(f"it said <{text}>, and")
    assert shown.startswith("it said <")
    assert shown.endswith(">, and")
    inner = text if "64" not in encoding else text[4:-4]
    assert inner not in shown
    assert "***" in shown


ESCAPES: list[Callable[[str], str]] = [
    lambda c: c,
    lambda c: f"%{ord(c):02x}",
    lambda c: f"%25{ord(c):02X}",
    lambda c: f"&#{ord(c)};",
    lambda c: f"&#x{ord(c):x};",
    lambda c: f"\\u{ord(c):04x}",
    lambda c: f"\\\\u{ord(c):04X}",
]


@given(st.lists(st.sampled_from(ESCAPES), min_size=len(KEY), max_size=len(KEY)), st.integers(0, 90), st.data())
@settings(deadline=None)
def test_a_key_is_masked_in_any_mixture_of_escapes_and_nothing_beside_it(
    escapes: list[Callable[[str], str]], before: int, data: st.DataObject
) -> None:
    around = "a%20b &lt;c&gt; \\n 100% & more &eacute; %C3%A9 "[:before]
    around = around[: around.rfind(" ") + 1]
    said = "".join(escape(c) for escape, c in zip(escapes, KEY, strict=True))
    redactor = Redactor([Secret(KEY)])
    assert redactor.known(f"{around}<{said}>{around}") == f"{around}<***>{around}"
    limit = data.draw(st.integers(1, len(said) * 3))
    shown = redactor.excerpt(f"{around}<{said * 40}", limit)
    left = re.sub(r"[*]{1,3}|\\", "", shown.removeprefix(around + "<")) if len(shown) > len(around) else ""
    assert len(left) <= 3, f"{left}: what is left at a cut is too short to be known"


@given(st.integers(0, 460), st.sampled_from([40, 80, 200, 400, 500]), st.booleans())
@settings(deadline=None)
def test_no_part_of_a_key_is_left_before_a_cut(before: int, limit: int, known: bool) -> None:
    text = "x" * before + " Incorrect API key: " + KEY * 3 + " rest " * 100
    redactor = Redactor([Secret(KEY)])
    with held(*([Secret(KEY)] if not known else [])):
        shown = redactor.excerpt(text, limit) if known else excerpt(text, limit)
    assert len(shown) <= limit
    assert not any(KEY[i : i + 5] in shown for i in range(len(KEY) - 4))


def test_a_text_full_of_keys_is_cut_without_one_at_its_end() -> None:
    with held(Secret(KEY)):
        for limit in range(4, 120):
            assert "kJ7-" not in excerpt(KEY * 500, limit)
            shown = excerpt_around("a" + KEY * 500 + "b", 43 * 250 + 7, before=60, after=limit)
            assert not any(piece in shown for piece in PIECES)


@pytest.mark.parametrize("place", [12, 20, 21, 22, 30, 31])
def test_halves_of_a_key_in_two_fields_are_masked(place: int) -> None:
    said = json.dumps({"message": f"bad key {KEY[:place]}", "param": f"{KEY[place:]} it ends"})
    shown = Redactor([Secret(KEY)]).known(said)
    assert sum(piece in shown for piece in PIECES) == 0
    assert json.loads(shown)["param"].endswith(" it ends")


def test_keys_of_an_answer_given_as_names_are_masked_and_our_own_names_stay() -> None:
    with held(Secret(KEY), Secret("text"), Secret("hunter22")):
        assert redacted({"answers": {KEY: 1, f"x {KEY} y": {"a": KEY}}}) == {
            "answers": {"***": 1, "x *** y": {"a": "***"}}
        }
        result = Redactor().known_in({"text": "text", "image_url": "u", KEY: 2, "my hunter22": 3})
        assert result == {"text": "***", "image_url": "u", "***": 2, "my ***": 3}


def test_what_is_held_is_known_to_everybody_until_it_is_let_go() -> None:
    with held(Secret(KEY)), held(Secret(KEY)):
        assert redacted(KEY) == Redactor().text(KEY) == excerpt(KEY, 50) == "***"
    assert redacted(f"say {KEY}") == f"say {KEY}"


@pytest.mark.parametrize("place", [LARGE - 60, LARGE - 20, LARGE - 1, LARGE, 2 * LARGE - 30, 2 * LARGE + 7])
@pytest.mark.parametrize(
    "secret", [KEY, base64.b64encode(KEY.encode()).decode(), "Bearer abcdefghijklmnop", "sk-" + "z" * 60]
)
def test_in_a_long_text_that_is_read_in_pieces_none_falls_between_them(place: int, secret: str) -> None:
    text = "lorem ipsum " * (3 * LARGE // 12)
    text = text[:place] + f" {secret} " + text[place:]
    shown = Redactor([Secret(KEY)]).text(text)
    assert secret not in shown
    assert shown.count("***") == 1
    assert shown.replace(" ", "")[:1000] == text.replace(" ", "")[:1000]
    assert len(shown) >= len(text) - len(secret)


@pytest.mark.parametrize("header", ["Bearer {}", "bearer  {}", "Basic {}", "Token {}", "ApiKey {}"])
def test_of_a_whole_header_the_token_is_masked_by_itself_too(header: str) -> None:
    with held(Secret(header.format(KEY))):
        shown = Redactor().known(f"{KEY} is wrong, {header.format(KEY)} as well, {KEY[:20]} even")
        assert not any(piece in shown for piece in PIECES)
    assert Redactor().known(KEY) == KEY


def test_secrets_are_found_where_they_stand() -> None:
    payload = {"api_key": "abcdef1", "headers": {"X-Api-Key": "abcdef2"}, "body": {"auth": {"token": "abcdef3"}}}
    assert {secret.reveal() for secret in named_secrets(payload)} == {"abcdef1", "abcdef2", "abcdef3"}
    assert named_secrets({"prompt": "abcdef", "token": "two words", "password": "abc"}) == ()
    assert secrets_in({"a": [Secret("x")], "b": "c"}) == (Secret("x"),)
    pairs = {"headers": [["Authorization", "Bearer abcdef4"], {"name": "X-Api-Key", "value": "abcdef5"}]}
    assert {secret.reveal() for secret in named_secrets(pairs)} == {"Bearer abcdef4", "abcdef5"}
    assert {
        secret.reveal() for secret in secrets_in(["http://me:p%2Fword@h/v1?code=abcdef6&n=1", "/x?api-key=abc%2Bef"])
    } == {
        *("p/word", "abcdef6", "abc+ef"),
    }
    assert secrets_in(["http://h/v1?limit=200000", "a@b.example", "why?", "http://[h?key=abcdef"]) == ()
    assert Secret("p/w") in url_secrets(Secret("redis://u:p%2Fw@host"))
    assert url_secrets(Secret("redis://host")) == ()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"client_secret": "a b c", "n": 1}', '{"client_secret": "***", "n": 1}'),
        ('{\\"api_key\\": \\"hunter2\\"}', '{\\"api_key\\": \\"***\\"}'),
        ("grant_type=x&client_secret=abc&scope=y", "grant_type=x&client_secret=***&scope=y"),
        ("Server=a;Password=b c;Database=d", "Server=a;Password=*** c;Database=d"),
        ("GET /f?code=abcdefghijklmnopqrst&n=1: error", "GET /f?code=***&n=1: error"),
        ("GET /f?code=not_found", "GET /f?code=not_found"),
        ("max_tokens=5, token_count: 7", "max_tokens=5, token_count: 7"),
        ("a eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.abc-def b", "a eyJ*** b"),
        ("hf_abcdefghijklmnopqrst and ghp_abcdefghijklmnopqrst", "hf_*** and ghp_***"),
    ],
)
def test_shapes(text: str, shown: str) -> None:
    assert Redactor().text(text) == shown


@pytest.mark.parametrize("secret", ['pa"ss/w0rd', "line\nbreak-1", "back\\slash-1", "tick'ed-1234"])
def test_a_secret_with_what_json_escapes_is_known_in_json_within_json(secret: str) -> None:
    text = json.dumps({"a": json.dumps({"b": f"before {secret} after"})}).replace("/", "\\/")
    masked = Redactor([Secret(secret)]).known(text)
    assert json.loads(json.loads(masked)["a"]) == {"b": "before *** after"}

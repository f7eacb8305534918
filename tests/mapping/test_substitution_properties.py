"""Properties of the parser: round trip, agreement with a POSIX shell, no foreign errors, time linear in the input."""

import os
import subprocess
import time
from collections.abc import Callable

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from emp_trio.mapping import SubstitutionError, escape, substitute

NAMES = ("A", "B_1", "EMPTY", "UNSET", "ALSO_UNSET")
env_values = st.dictionaries(st.sampled_from(NAMES), st.text(max_size=8).filter(lambda s: "\0" not in s))


@given(st.text(), env_values)
def test_escaped_text_comes_back_unchanged(text: str, env: dict[str, str]) -> None:
    assert substitute(escape(text), env).value == text


@given(st.text(), env_values)
def test_escaped_text_comes_back_from_a_default(text: str, env: dict[str, str]) -> None:
    # A word must be balanced, so braces are left out.
    text = text.replace("{", "").replace("}", "")
    assert substitute(f"${{UNSET_NAME:-{escape(text)}}}", env).value == text


# Strings made of the parser's own alphabet reach its corners far more often than random text does.
fragments = st.sampled_from(
    ["${", "}", "{", "$", "$$", ":-", "-", ":?", "?", ":+", "+", ":", "A", "B_1", "1", " ", "é"]
)


@settings(max_examples=500)
@given(st.one_of(st.text(), st.lists(fragments, max_size=30).map("".join)), env_values)
def test_only_its_own_error_comes_out(text: str, env: dict[str, str]) -> None:
    done = error = None
    try:
        done = substitute(text, env)
    except SubstitutionError as caught:
        error = caught
    if error is not None:
        assert text[error.column - 1 : error.column + 1] == "${"
    if done is not None:
        assert "".join(p.text for p in done.pieces) == done.value


@given(st.lists(fragments, max_size=30).map("".join))
def test_wrong_syntax_does_not_depend_on_the_environment(text: str) -> None:
    def broken(env: dict[str, str]) -> bool:
        try:
            substitute(text, env)
        except SubstitutionError as error:
            return not error.missing
        return False

    assert broken({}) == broken({"A": "x", "B_1": ""})


# --- against dash, in the subset both agree on: no $$, no bare $N, no quotes, backslashes or braces in words ---------

plain = st.text("abcXYZ019 :-+?/.,@%#=\n", max_size=6)
texts = st.recursive(
    plain,
    lambda inner: st.lists(
        st.one_of(
            plain,
            st.sampled_from(NAMES).map(lambda n: f"${{{n}}}"),
            st.builds(
                lambda name, op, word: f"${{{name}{op}{word}}}",
                st.sampled_from(NAMES),
                st.sampled_from([":-", "-", ":?", "?", ":+", "+"]),
                inner,
            ),
        ),
        max_size=4,
    ).map("".join),
    max_leaves=8,
)
shell_values = st.fixed_dictionaries({}, optional={"A": plain, "B_1": plain, "EMPTY": st.just("")})


def ask_dash(cases: list[tuple[str, dict[str, str]]]) -> list[str | None]:
    """What dash makes of each text in a here-document; None where it ends with an error."""
    script = ["unset " + " ".join(NAMES)]
    for text, env in cases:
        assigned = "; ".join(f"{name}='{value}'" for name, value in env.items())
        # A missing variable is an error for us, hence set -u; the e at the end guards line breaks before it.
        script.append(
            f"(set -u; {assigned or ':'}\ncat <<END_OF_CASE\n{text}e\nEND_OF_CASE\n) || printf ERR; printf '\\036'"
        )
    ran = subprocess.run(
        ["dash", "-s"],
        input="\n".join(script),
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": os.environ["PATH"]},
    )
    answers = ran.stdout.split("\036")[:-1]
    assert len(answers) == len(cases), ran.stderr
    return [None if a == "ERR" else a.removesuffix("e\n") for a in answers]


def ask_ourselves(text: str, env: dict[str, str]) -> str | None:
    try:
        return substitute(text, env).value
    except SubstitutionError:
        return None


# No shrinking: the differing cases are printed one by one, and each step of it would start shells again.
@settings(max_examples=25, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.lists(st.tuples(texts, shell_values), min_size=20, max_size=40))
def test_agrees_with_dash(cases: list[tuple[str, dict[str, str]]]) -> None:
    ours = [ask_ourselves(text, env) for text, env in cases]
    assert [
        (c, mine, theirs) for c, mine, theirs in zip(cases, ours, ask_dash(cases), strict=True) if mine != theirs
    ] == []


# --- time ----------------------------------------------------------------------------------------------------

SHAPES: dict[str, Callable[[int], str]] = {
    "plain": lambda n: "x" * n,
    "dollars": lambda n: "$" * n,
    "references": lambda n: "${A}" * (n // 4),
    "one default": lambda n: "${M:-" + "x{} " * (n // 4) + "}",
    "deep": lambda n: ("${M:-" * 32 + "}" * 32) * (n // 192),
    "long name": lambda n: "${" + "A" * n + "}",
    "missing names": lambda n: "".join(f"${{M{i}}}" for i in range(n // 9)),
    "unclosed": lambda n: "${A:-" + "y$" * (n // 2),
    "check": lambda n: "${A:?" + "${A}" * (n // 4) + "}",
}


def seconds(text: str) -> float:
    env = {"A": "value", **{f"V{i}": "x" for i in range(60)}}
    best = float("inf")
    for _ in range(2):
        start = time.thread_time()
        ask_ourselves(text, env)
        best = min(best, time.thread_time() - start)
    return best


@pytest.mark.parametrize("shape", SHAPES)
def test_time_is_linear_up_to_1_mb(shape: str) -> None:
    small, large = seconds(SHAPES[shape](100_000)), seconds(SHAPES[shape](1_000_000))
    # Ten times the text: linear is 10, square is 100. The floor keeps very quick shapes from failing by noise.
    assert large / max(small, 0.005) < 40

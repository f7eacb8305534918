"""No text of anybody else's makes this package work longer than in proportion to its length (design invariant 11)."""

from __future__ import annotations

import ast
import contextlib
import importlib
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest

import emp_trio
from emp_trio.assets.content import decode_text
from emp_trio.errors import EmpTrioError
from emp_trio.protocols.decoders import NdjsonDecoder, SseDecoder
from emp_trio.protocols.http.errors import describe_status
from emp_trio.queue import sanitiser
from emp_trio.secrets import Redactor, Secret, excerpt
from emp_trio.services.gemini.errors import describe_error as gemini_error
from emp_trio.services.openai.errors import describe_error as openai_error
from emp_trio.services.redaction import redacted

ROOT = Path(emp_trio.__file__).parent
SMALL, FACTOR = 2500, 4
QUICK = 0.001  # seconds; what is over so soon with a long text is linear, however slow the machine


def foreign_modules() -> list[str]:
    found = pkgutil.walk_packages([str(ROOT)], "emp_trio.")
    return [m.name for m in found if not m.name.startswith("emp_trio.testing") and not m.name.endswith("__main__")]


def patterns_of(value: Any, depth: int = 3) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif depth and isinstance(value, tuple | list | set | frozenset):
        for item in value:
            yield from patterns_of(item, depth - 1)
    elif depth and isinstance(value, dict):
        yield from patterns_of([*value.keys(), *value.values()], depth - 1)


def collected() -> dict[str, tuple[re.Pattern[Any], bool]]:
    """Every regular expression of the package: those of its modules, those in calls, those that functions make; and
    whether it is searched for, or only tried at one place."""
    found: dict[str, tuple[re.Pattern[Any], bool]] = {}
    everything = "\n".join(path.read_text() for path in ROOT.rglob("*.py"))
    for name in foreign_modules():
        module = importlib.import_module(name)
        for variable, value in vars(module).items():
            for number, pattern in enumerate(patterns_of(value)):
                tried = re.search(rf"\b{variable}\.(match|fullmatch)\b", everything) is not None
                searched = (
                    re.search(rf"\b{variable}\.(search|sub|subn|finditer|findall|split)\b", everything) is not None
                )
                found.setdefault(f"{pattern.pattern!r:.60} {pattern.flags}", (pattern, searched or not tried))
                assert number < 100, variable
        tree = ast.parse(Path(str(module.__file__)).read_text())
        for call in ast.walk(tree):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            if (
                not (isinstance(call.func.value, ast.Name) and call.func.value.id == "re")
                or call.func.attr == "compile"
            ):
                continue
            if call.args and isinstance(call.args[0], ast.Constant):
                pattern = re.compile(call.args[0].value)
                searched = call.func.attr not in ("match", "fullmatch")
                found.setdefault(f"{pattern.pattern!r:.60} {pattern.flags}", (pattern, searched))
    for pattern in (sanitiser._run(100), sanitiser._run(4096)):
        found[f"{pattern.pattern!r}"] = (pattern, True)
    return found


PATTERNS = collected()


def sample(item: Any) -> str:
    """A text that a part of a regular expression matches, more or less."""
    kind, argument = item
    match kind:
        case ops.LITERAL:
            return chr(argument)
        case ops.NOT_LITERAL:
            return "a" if argument != ord("a") else "b"
        case ops.ANY:
            return "a"
        case ops.IN:
            return str(chosen(argument))
        case ops.BRANCH:
            return sampled(argument[1][0])
        case ops.SUBPATTERN:
            return sampled(argument[3])
        case ops.ATOMIC_GROUP:
            return sampled(argument)
        case ops.MAX_REPEAT | ops.MIN_REPEAT | ops.POSSESSIVE_REPEAT:
            return str(sampled(argument[2]) * min(max(argument[0], 1), 8))
        case _:
            return ""


def chosen(members: Any) -> str:
    if members[0][0] is ops.NEGATE:
        taken = re.compile("")
        for character in "aA0-_. /\n:=":
            if all(not fits(member, character) for member in members[1:]):
                return character
        return taken.pattern or "ä"
    kind, argument = members[0]
    match kind:
        case ops.LITERAL:
            return chr(argument)
        case ops.RANGE:
            return chr(argument[0])
        case ops.CATEGORY:
            words = {ops.CATEGORY_DIGIT: "7", ops.CATEGORY_SPACE: " ", ops.CATEGORY_WORD: "w"}
            return str(words.get(argument, "a"))
        case _:
            return "a"


def fits(member: Any, character: str) -> bool:
    kind, argument = member
    if kind is ops.LITERAL:
        return bool(ord(character) == argument)
    if kind is ops.RANGE:
        return bool(argument[0] <= ord(character) <= argument[1])
    spaces = {ops.CATEGORY_SPACE: str.isspace, ops.CATEGORY_DIGIT: str.isdigit, ops.CATEGORY_WORD: str.isalnum}
    return bool(spaces[argument](character)) if argument in spaces else False


def sampled(parts: Any) -> str:
    return "".join(map(sample, parts))


def repeated(parts: Any) -> Iterator[str]:
    """What stands in the repetitions of a regular expression, and every alternative of it."""
    for kind, argument in parts:
        if kind in (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT):
            yield sampled(argument[2])
            yield from repeated(argument[2])
        elif kind is ops.SUBPATTERN:
            yield from repeated(argument[3])
        elif kind is ops.ATOMIC_GROUP:
            yield from repeated(argument)
        elif kind is ops.BRANCH:
            for branch in argument[1]:
                yield sampled(branch)
                yield from repeated(branch)


def units(pattern: re.Pattern[Any]) -> list[tuple[str, str]]:
    """(beginning, what is repeated) of texts that a bad expression would take long for."""
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    parsed = parser.parse(text, pattern.flags & ~re.DEBUG)
    whole = sampled(parsed)
    heads = {"", whole, whole[: len(whole) // 2]} | {sampled(list(parsed)[:n]) for n in range(1, min(len(parsed), 6))}
    parts = {part for part in repeated(parsed) if part} | {whole or "a", "a", " ", whole[:-1] or "a"}
    # a run that is one short of what is wanted, again and again
    parts |= {part * 99 + "\x01" for part in list(parts)[:4] if len(part) == 1}
    return [(head, part) for head in sorted(heads) for part in sorted(parts)]


def clocked(work: Callable[[], object], runs: int) -> float:
    best = float("inf")
    for _ in range(runs):
        began = time.thread_time()
        with contextlib.suppress(EmpTrioError):
            work()
        best = min(best, time.thread_time() - began)
    return best


def is_linear(work: Callable[[int], Callable[[], object]], *, small: int = SMALL, quick: float = QUICK) -> bool:
    """Whether work on a text of four times the length takes less than eight times as long."""
    long = work(small * FACTOR)
    if clocked(long, 1) < quick:
        return True
    short = work(small)
    return any(clocked(long, 3) < 2 * FACTOR * max(clocked(short, 3), 1e-5) for _ in range(4))


@pytest.mark.parametrize("name", PATTERNS)
def test_every_regular_expression_takes_linear_time(name: str) -> None:
    pattern, searched = PATTERNS[name]
    binary = isinstance(pattern.pattern, bytes)

    def use(head: str, unit: str, how: str) -> Callable[[int], Callable[[], object]]:
        def of(length: int) -> Callable[[], object]:
            text = head + unit * (length // len(unit)) + "\x00"
            given: Any = text.encode("utf-8", "replace") if binary else text
            if how == "find":
                return lambda: sum(1 for _ in pattern.finditer(given))
            return lambda: (pattern.match(given), pattern.fullmatch(given))

        return of

    for head, unit in units(pattern):
        for how in ("find", "match") if searched else ("match",):
            assert is_linear(use(head, unit, how)), f"{how} of {head!r:.80} and many {unit!r:.80}"


def test_the_measure_finds_what_is_not_linear() -> None:
    bad = re.compile(r"data:([\w.+-]+/[\w.+-]+)?[\w;=.+-]*;base64,")
    assert not is_linear(lambda n: lambda: bad.search("data:a/" + "a" * n), small=300, quick=0)
    assert not is_linear(lambda n: lambda: re.search(r"a+b", "a" * n), small=1000, quick=0)
    assert is_linear(lambda n: lambda: re.search(r"a+b", "a" * 50 + "ab" * n), quick=0)


def test_expressions_are_made_where_this_test_finds_them() -> None:
    made = set()
    for name in foreign_modules():
        path = Path(str(importlib.import_module(name).__file__))
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and "re.compile(" in ast.unparse(function):
                made.add(f"{name}.{function.name}")
    assert made == {"emp_trio.queue.sanitiser._run"}


KEY = "kJ7-x_Qw9ZpLm3Rt5Vb8Nc2Df4Gh6Js1"
HOSTILE = [
    "base64, data:a/" + "a" * 100,
    "data:a/a;base64,",
    ";base64,",
    "data:",
    "data:image/png;base64,AAAA",
    "data:a/" + "a" * 240 + "X;base64,",
    KEY,
    KEY[:-1],
    KEY[:12],
    "api_key=",
    '"token": "',
    "a1=b1=",
    "sk-",
    "bearer ",
    "://a:",
    "A" * 4095 + "!",
    "A" * 99 + "!",
    "{",
    '{"a": "',
    '\\"',
    " ",
    "\r",
    "\n",
    "data: {}\n",
    "http://",
    "%",
    "&amp;",
    "ä",
    "token per minute ",
    "<",
]
READERS: dict[str, Callable[[str], object]] = {
    "redacted": lambda text: redacted({"prompt": text, text: [text]}),
    "sanitised text": lambda text: sanitiser.sanitised_text(text, shortest=4096),
    "sanitised": lambda text: sanitiser.sanitised(repr_json({"a": [text, {"b": text}]})),
    "redactor": Redactor([Secret(KEY), Secret("pass/word+=&<>")]).text,
    "known in": lambda text: Redactor([Secret(KEY)]).known_in({"a": text, text: [text]}),
    "excerpt": lambda text: excerpt(text, SMALL),
    "a data URL": decode_text,
    "an event stream": lambda text: SseDecoder().feed(text.encode()),
    "an event stream in single bytes": lambda text: fed(SseDecoder(), text),
    "lines of JSON": lambda text: fed(NdjsonDecoder(), text),
    "an error of any service": lambda text: describe_status(400, {}, repr_json({"error": {"message": text}})),
    "an error of OpenAI": lambda text: openai_error(400, {}, repr_json({"error": {"message": text, "code": text}})),
    "an error of Gemini": lambda text: gemini_error(
        429, {}, repr_json({"error": {"message": text, "details": [quota(text)]}})
    ),
}


def repr_json(value: Any) -> bytes:
    import msgspec

    return msgspec.json.encode(value)


def quota(text: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": text}]}


def fed(decoder: Any, text: str) -> None:
    data = text.encode()
    for place in range(0, len(data), 7):
        decoder.feed(data[place : place + 7])


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_of_foreign_texts_takes_linear_time(reader: str) -> None:
    read = READERS[reader]

    def use(unit: str) -> Callable[[int], Callable[[], object]]:
        def of(length: int) -> Callable[[], object]:
            text = unit * (length // len(unit) + 1)
            return lambda: read(text)

        return of

    for unit in HOSTILE:
        assert is_linear(use(unit)), f"many {unit!r:.60}"


def test_runs_that_are_nearly_long_enough_cost_no_more_than_others() -> None:
    """Each would be read again from each of its characters, if a run could begin in the middle of itself."""
    for shortest in (100, 4096):
        near, other = ("A" * (shortest - 1) + " ") * (40_960 // shortest), "A bc" * 10_240
        assert costs_no_more(
            partial(sanitiser.sanitised_text, near, shortest=shortest),
            partial(sanitiser.sanitised_text, other, shortest=shortest),
        )
        assert costs_no_more(
            partial(sanitiser.sanitised, near.encode(), shortest=shortest),
            partial(sanitiser.sanitised, other.encode(), shortest=shortest),
        )


def costs_no_more(work: Callable[[], object], other: Callable[[], object]) -> bool:
    return any(clocked(work, 3) < 20 * max(clocked(other, 3), 1e-4) for _ in range(4))

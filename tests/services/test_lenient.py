"""Numbers and truth values as submitters write them."""

from __future__ import annotations

from typing import Any

import pytest

from emp_trio.errors import InvalidJob
from emp_trio.services.lenient import flag, number
from emp_trio.services.ollama.requests import ollama_request
from emp_trio.services.openai.chat.request import chat_request
from emp_trio.services.openai.responses.request import responses_request


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("512", 512),
        (" 512 ", 512),
        ("-3", -3),
        ("0.7", 0.7),
        ("1e3", 1000.0),
        (5, 5),
        (True, True),
        (None, None),
        ("", ""),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("nan", "nan"),
        ("1e999", "1e999"),
        ("٣", "٣"),
        ("9" * 5000, "9" * 5000),
        ([1], [1]),
    ],
)
def test_a_number_in_a_text(value: Any, meant: Any) -> None:
    found = number(value)
    assert found == meant
    assert type(found) is type(meant)


@pytest.mark.parametrize("value", ["maybe", 2, -1, [], {}, "truetruetruetruetruetrue", float("nan")])
def test_what_is_neither_true_nor_false_is_named(value: Any) -> None:
    with pytest.raises(InvalidJob, match=r"payload.save_assets must be true or false"):
        flag({"save_assets": value}, "save_assets", default=False)


def test_a_flag_that_is_not_given_is_as_usual() -> None:
    assert flag({}, "x", default=True)
    assert flag({"x": None}, "x", default=True)
    assert not flag({"x": "off"}, "x", default=True)


def test_services_that_take_no_text_for_a_number_get_numbers() -> None:
    chat = chat_request(
        {"prompt": "x", "temperature": "0.5", "max_tokens": "100", "n": "1", "stop": "5"},
        default_model="m",
        max_tokens=None,
        stream=False,
    ).body
    assert (chat["temperature"], chat["max_completion_tokens"], chat["n"], chat["stop"]) == (0.5, 100, 1, "5")
    options = {"num_ctx": "2048", "stop": "5"}
    ollama = ollama_request("ollama", {"prompt": "x", "top_k": "3", "options": options}, default_model="m").body
    assert ollama["options"] == {"top_k": 3, "num_ctx": 2048, "stop": "5"}


def test_so_do_options_in_the_words_of_the_service_itself() -> None:
    options = {"seed": "1", "min_p": "0.1", "stop": "5"}
    ollama = ollama_request("ollama", {"prompt": "x", "options": options}, default_model="m").body
    assert ollama["options"] == {"seed": 1, "min_p": 0.1, "stop": "5"}
    given = {"dynamic_json": {"input": "5", "max_output_tokens": "50", "top_p": "1"}}
    responses = responses_request(given, job_id="j", default_model="m").body
    assert (responses["max_output_tokens"], responses["top_p"], responses["input"]) == (50, 1, "5")

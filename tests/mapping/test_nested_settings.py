"""Settings that are lists and objects: the body of a request, a list of words."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from emp_trio.errors import ConfigError
from emp_trio.mapping import Plan, load_mapping, plan
from emp_trio.secrets import Secret

from .support import mapping_file, said, worker


class LetterConnector:
    """Has settings of both kinds."""

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        body: Any = None
        words: tuple[str, ...] = ("done",)
        headers: dict[str, str] = {}


def letters(folder: Path, env: dict[str, str] | None = None, **api_config: Any) -> Plan:
    file = mapping_file(
        folder,
        workers={"mail": worker("letter>letters")},
        services={"letters": {"connector": "LetterConnector", "api_config": api_config}},
    )
    return plan(load_mapping(file).checked(), "mail", env=env or {}, gpus=0, find_connector=lambda *_: LetterConnector)


def test_texts_are_substituted_wherever_they_stand(tmp_path: Path) -> None:
    body = {"to": ["${WHO:-all}", {"by": "post-${N:-1}"}], "n": 1, "on": True, "none": None, "price": "5 $$"}
    service = letters(
        tmp_path, {"WHO": "you"}, body=body, words=["${WORD:-ok}", "fine"], headers={"x-by": "${WHO}"}
    ).services["letters"]
    assert service.settings.body == {
        "to": ["you", {"by": "post-1"}],
        "n": 1,
        "on": True,
        "none": None,
        "price": "5 $",
    }
    assert service.settings.words == ("ok", "fine")
    assert service.settings.headers == {"x-by": "you"}
    sources = {o.name: (o.source, o.variables) for o in service.origins}
    assert sources == {
        "body": ("mixed", ("WHO", "N")),
        "words": ("default", ("WORD",)),
        "headers": ("environment", ("WHO",)),
    }


def test_what_is_missing_or_does_not_fit_is_named_by_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        letters(tmp_path, body={"to": ["${WHO}", "${WHERE}"]}, words=["a", 5], headers="x")
    place = "error: $.services.letters.api_config"
    assert said(caught.value.problems) == [
        f"{place}.body.to[0] column 1: WHO is not set (set it, or write ${{WHO:-default}})",
        f"{place}.body.to[1] column 1: WHERE is not set (set it, or write ${{WHERE:-default}})",
        f'{place}.words: ["a", 5] does not fit words: Expected `str`, got `int`',
        f'{place}.headers: "x" does not fit headers: Expected `object`, got `str`',
    ]


def test_a_secret_in_a_body_is_known_as_one(tmp_path: Path) -> None:
    found = letters(tmp_path, {"POST_TOKEN": "stamp-of-mine"}, body={"with": "${POST_TOKEN}"})
    assert found.secrets == (Secret("stamp-of-mine"),)
    assert "stamp-of-mine" not in repr(found.services["letters"].origins)

"""What ``explain`` says: the whole chain of each worker type, where each setting came from, and what is missing."""

from pathlib import Path

import msgspec
import pytest

from emp_trio.errors import ConfigError
from emp_trio.mapping import Explanation, explain

from .support import find, load, worker

PARTS = {
    "workers": {
        "art": worker("image>images", required_env=["ART_LICENSE"]),
        "post": worker("letter>letters"),
        "copy": worker("letter>letters", "image>nowhere"),
    },
    "connectors": {"ImageConnector": {"path": "./redis-direct-worker.js"}},
    "services": {
        "images": {
            "connector": "ImageConnector",
            "type": "external_api",
            "api_config": {"timeout": "${SLOW:-9}", "max_retries": 1},
        },
        "letters": {"connector": "Nobody"},
    },
}


def explained(tmp_path: Path, job_type: str, env: dict[str, str]) -> Explanation:
    return explain(load(tmp_path, **PARTS).checked(), job_type, env=env, find_connector=find)


def test_the_whole_chain(tmp_path: Path) -> None:
    found = explained(tmp_path, "image", {"IMAGE_API_KEY": "key-of-mine", "IMAGE_URL": "http://u:pw-word@h"})
    art, copy = found.chains
    assert (art.worker_type, art.worker_service, art.service_type) == ("art", "images", "external_api")
    assert (art.connector, art.connector_path) == ("ImageConnector", "./redis-direct-worker.js")
    assert art.connector_class == "tests.mapping.support:ImageConnector"
    settings = {o.name: (o.value, o.source, o.variables) for o in art.settings}
    assert settings == {
        "api_key": ("***", "environment", ("IMAGE_API_KEY",)),
        "base_url": ("http://u:***@h", "environment", ("IMAGE_URL",)),
        "timeout": (9.0, "default", ("SLOW",)),
        "max_retries": (1, "literal", ()),
        "verify": (True, "default", ()),
        "quality": ("low", "default", ("IMAGE_QUALITY",)),
        "style": (None, "default", ("IMAGE_STYLE",)),
    }
    assert [(r.variable, r.by, r.is_set) for r in art.required] == [("ART_LICENSE", "worker type art", False)]
    assert [p.variable for p in art.problems] == ["ART_LICENSE"]
    assert [p.path for p in copy.problems] == ["$.workers.copy.job_service_required_map[1].worker_service"]


def test_it_is_json_without_secrets(tmp_path: Path) -> None:
    found = explained(tmp_path, "image", {"IMAGE_API_KEY": "key-of-mine", "IMAGE_URL": "http://u:pw-word@h"})
    text = msgspec.json.encode(found)
    assert b"key-of-mine" not in text
    assert b"pw-word" not in text
    assert msgspec.json.decode(text, type=Explanation) == found


def test_missing_settings_are_shown_as_missing(tmp_path: Path) -> None:
    art = explained(tmp_path, "image", {}).chains[0]
    key = art.settings[0]
    assert (key.name, key.value, key.source, key.text) == ("api_key", None, "missing", "${IMAGE_API_KEY}")
    assert [(r.variable, r.is_set) for r in art.required] == [("ART_LICENSE", False), ("IMAGE_API_KEY", False)]


def test_every_worker_type_that_takes_the_job_type_is_shown(tmp_path: Path) -> None:
    found = explained(tmp_path, "letter", {})
    assert [c.worker_type for c in found.chains] == ["post", "copy"]
    assert all(c.connector_class is None and c.problems for c in found.chains)


def test_unknown_job_type(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        explained(tmp_path, "imag", {})
    (problem,) = caught.value.problems
    assert problem.hint == "did you mean image?"

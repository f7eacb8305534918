"""From a worker string to connectors with settings: precedence, conversion, provenance, all that can be missing."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emp_trio.errors import ConfigError
from emp_trio.mapping import Plan, ServiceMapping, explain, load_mapping, plan
from emp_trio.mapping.schema import Route, Service, WorkerType
from emp_trio.secrets import Secret

from .support import FLEET_FILE, AddressConnector, ImageConnector, Web, find, load, planned, said, worker

KEY = {"IMAGE_API_KEY": "key-of-mine"}


def images(**api_config: Any) -> dict[str, Any]:
    return {
        "workers": {"art": worker("image>images")},
        "services": {"images": {"connector": "ImageConnector", "api_config": api_config}},
    }


def problems_of(tmp_path: Path, wanted: str, *, env: dict[str, str] | None = None, **parts: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        planned(tmp_path, wanted, env=env, **parts)
    return said(caught.value.problems)


def origin(found: Plan, name: str, service: str = "images") -> tuple[Any, str, str]:
    (one,) = (o for o in found.services[service].origins if o.name == name)
    return one.value, one.source, one.path


def test_the_whole_way(tmp_path: Path) -> None:
    found = planned(tmp_path, "art:3", env=KEY, **images())
    (art,) = found.workers
    assert (art.name, art.count, art.is_gpu_bound, art.worker_id) == ("art", 3, False, None)
    service = art.routes["image"]
    assert service is found.services["images"]
    assert (service.worker_service, service.connector_name, service.connector) == (
        "images",
        "ImageConnector",
        ImageConnector,
    )
    assert service.settings == ImageConnector.Settings(
        api_key=Secret("key-of-mine"), web=Web(base_url="https://images.example/v1"), quality="low", style=None
    )
    assert found.secrets == (Secret("key-of-mine"),)
    assert found.warnings == ()


FILE = "$.services.images.api_config."
WEB = "ImageConnector.web."
DEFAULT_URL = "https://images.example/v1"

PRECEDENCE: list[tuple[dict[str, str], dict[str, Any], str, tuple[Any, str, str]]] = [
    # the variable of the connector, api_config, the expression's default, the struct's default
    (
        {"IMAGE_URL": "http://env"},
        {"base_url": "http://file"},
        "base_url",
        ("http://env", "environment", WEB + "base_url"),
    ),
    ({}, {"base_url": "http://file"}, "base_url", ("http://file", "literal", FILE + "base_url")),
    ({"IMAGE_URL": "  "}, {"base_url": "http://file"}, "base_url", ("http://file", "literal", FILE + "base_url")),
    ({}, {"base_url": "${OTHER}"}, "base_url", ("http://o", "environment", FILE + "base_url")),
    ({}, {"base_url": "${NONE:-http://d}"}, "base_url", ("http://d", "default", FILE + "base_url")),
    ({}, {"base_url": "${OTHER}/v${NONE:-2}"}, "base_url", ("http://o/v2", "mixed", FILE + "base_url")),
    ({}, {}, "base_url", (DEFAULT_URL, "default", WEB + "base_url")),
    ({}, {"base_url": None}, "base_url", (DEFAULT_URL, "default", WEB + "base_url")),
    ({}, {"base_url": "${BLANK}"}, "base_url", (DEFAULT_URL, "default", WEB + "base_url")),
    ({"IMAGE_TIMEOUT": "5"}, {"timeout": 7}, "timeout", (5.0, "environment", WEB + "timeout")),
    ({}, {"timeout": 7}, "timeout", (7.0, "literal", FILE + "timeout")),
    ({}, {"timeout": "${NONE:-8}"}, "timeout", (8.0, "default", FILE + "timeout")),
    ({}, {}, "timeout", (60.0, "default", WEB + "timeout")),
    ({}, {"max_retries": "${COUNT}"}, "max_retries", (9, "environment", FILE + "max_retries")),
    ({}, {"verify": "${NONE:-False}"}, "verify", (False, "default", FILE + "verify")),
    ({"IMAGE_QUALITY": "high"}, {"quality": "low"}, "quality", ("high", "environment", "ImageConnector.quality")),
    ({"IMAGE_STYLE": "cubist"}, {}, "style", ("cubist", "environment", "ImageConnector.style")),
    ({}, {}, "style", (None, "default", "ImageConnector.style")),
]


@pytest.mark.parametrize(("env", "api_config", "name", "expected"), PRECEDENCE)
def test_precedence_and_origin(
    tmp_path: Path, env: dict[str, str], api_config: dict[str, Any], name: str, expected: tuple[Any, str, str]
) -> None:
    env = {**KEY, "OTHER": "http://o", "BLANK": "", "COUNT": "9", **env}
    assert origin(planned(tmp_path, "art", env=env, **images(**api_config)), name) == expected


UNFIT: list[tuple[dict[str, str], dict[str, Any], str]] = [
    ({}, {"timeout": "${SLOW}"}, FILE + 'timeout: "soon" does not fit timeout: a number is wanted'),
    ({"IMAGE_TIMEOUT": "soon"}, {}, WEB + 'timeout: "soon" does not fit timeout: a number is wanted'),
    ({}, {"timeout": "60"}, '"60" does not fit timeout: a number is wanted (write a number without'),
    ({}, {"timeout": "6${NONE:-0}"}, '"60" does not fit timeout: a number is wanted (write a number without'),
    ({}, {"timeout": 0}, "0 does not fit timeout: Expected `float` > 0.0"),
    ({}, {"timeout": "${NONE:-nan}"}, '"nan" does not fit timeout: '),
    ({}, {"timeout": "${NONE:-inf}"}, '"inf" does not fit timeout: a finite number is wanted'),
    ({}, {"timeout": True}, "true does not fit timeout"),
    ({}, {"max_retries": 1.5}, "1.5 does not fit max_retries"),
    ({}, {"max_retries": "${NONE:-many}"}, '"many" does not fit max_retries: a whole number is wanted'),
    ({}, {"verify": "${NONE:-yes}"}, '"yes" does not fit verify: true, false, 1 or 0 is wanted'),
    ({}, {"quality": "best"}, '"best" does not fit quality: '),
    ({}, {"timeout": [60]}, "[60] does not fit timeout: Expected `float`, got `array`"),
    ({}, {"quality": {"a": "b"}}, '{"a": "b"} does not fit quality: '),
    ({}, {"base_url": 5}, "5 does not fit base_url: Expected `str`, got `int`"),
]


@pytest.mark.parametrize(("env", "api_config", "words"), UNFIT)
def test_value_that_does_not_fit(tmp_path: Path, env: dict[str, str], api_config: dict[str, Any], words: str) -> None:
    (line,) = problems_of(tmp_path, "art", env={**KEY, "SLOW": "soon", **env}, **images(**api_config))
    assert words in line


def test_everything_that_is_wrong_comes_out_at_once(tmp_path: Path) -> None:
    parts: dict[str, Any] = {
        "workers": {
            "art": worker("image>images", "drawing>drawings", required_env=["ART_LICENSE"]),
            "post": worker("letter>letters", "card>cards"),
            "off": worker("x>never-looked-at", required_env=["NEVER_ASKED_FOR"]),
        },
        "connectors": {"Broken": {"path": "broken:Broken"}, "Unknown": {}},
        "services": {
            "images": {
                "connector": "ImageConnector",
                "required_env": ["ART_LICENSE", "IMAGE_REGION"],
                "api_config": {"base_url": "http://${IMAGE_HOTS}:${IMAGE_PROT}/", "timeout": "${SLOW}"},
            },
            "drawings": {"connector": "ImageConnector"},
            "letters": {"connector": "Broken"},
            "cards": {"connector": "AddresConnector"},
            "never-looked-at": {"connector": "ImageConnector", "api_config": {"base_url": "${NEVER_ASKED_FOR}"}},
        },
    }
    env = {"IMAGE_HOST": "h", "SLOW": "soon", "IMAGE_REGION": ""}
    assert problems_of(tmp_path, "art,post:2,of:1", env=env, **parts) == [
        "error: WORKERS column 12: there is no worker type 'of' (did you mean off?)",
        f"error: {FILE}base_url column 8: IMAGE_HOTS is not set (did you mean IMAGE_HOST?)",
        f"error: {FILE}base_url column 22: IMAGE_PROT is not set (did you mean IMAGE_HOST?)",
        f'error: {FILE}timeout: "soon" does not fit timeout: a number is wanted',
        "error: $.services.letters.connector: broken:Broken cannot be imported: it is broken",
        "error: $.services.cards.connector: there is no connector 'AddresConnector' "
        "(is the package that brings it installed?)",
        "error: $.workers.art.required_env: ART_LICENSE is not set; needed by worker type art, service images "
        "(set it in the environment of the worker)",
        "error: $.services.images.required_env: IMAGE_REGION is set but empty; needed by service images "
        "(set it in the environment of the worker)",
        "error: $.services.images.connector: IMAGE_API_KEY is not set; needed by ImageConnector "
        "(set it in the environment of the worker)",
    ]


def test_services_that_no_worker_uses_are_not_looked_at(tmp_path: Path) -> None:
    parts = images(base_url="${NOWHERE}")
    parts["workers"]["echo"] = worker("e>echo")
    parts["services"]["echo"] = {"connector": "EchoConnector"}
    assert list(planned(tmp_path, "echo", **parts).services) == ["echo"]
    assert list(planned(tmp_path, "echo,art:0", **parts).services) == ["echo"]


def test_two_types_that_serve_one_job_type_each_use_their_own_service(tmp_path: Path) -> None:
    found = planned(
        tmp_path,
        "far,near",
        workers={"near": worker("comfyui>here"), "far": worker("comfyui>there")},
        services={"here": {"connector": "EchoConnector"}, "there": {"connector": "EchoConnector"}},
    )
    assert [(w.name, w.routes["comfyui"].worker_service) for w in found.workers] == [("far", "there"), ("near", "here")]


def test_a_service_of_two_types_is_one(tmp_path: Path) -> None:
    found = planned(
        tmp_path,
        "a,b",
        workers={"a": worker("x>echo", "y>echo"), "b": worker("x>echo")},
        services={"echo": {"connector": "EchoConnector"}},
    )
    a, b = found.workers
    assert a.routes["x"] is a.routes["y"] is b.routes["x"]


def test_of_two_routes_for_one_job_type_the_first_is_used(tmp_path: Path) -> None:
    found = planned(
        tmp_path,
        "a",
        workers={"a": worker("x>one", "x>two")},
        services={"one": {"connector": "EchoConnector"}, "two": {"connector": "EchoConnector"}},
    )
    assert found.workers[0].routes["x"].worker_service == "one"


def test_settings_that_only_the_mapping_gives(tmp_path: Path) -> None:
    parts: dict[str, Any] = {
        "workers": {"post": worker("letter>letters")},
        "services": {"letters": {"connector": "AddressConnector", "api_config": {"adress": "here"}}},
    }
    assert problems_of(tmp_path, "post", **parts) == [
        "error: $.services.letters.api_config.address: is missing (AddressConnector has no default for it)",
        "warning: $.services.letters.api_config.adress: AddressConnector has no setting 'adress' "
        "(did you mean address?)",
    ]
    parts["services"]["letters"]["api_config"] = {"address": "here", "token": "${A_SECRET}", "image_models": "a,b"}
    found = planned(tmp_path, "post", env={"ADDRESS_PORT": "81", "A_SECRET": "hush-hush"}, **parts)
    assert found.warnings == ()
    assert found.services["letters"].settings == AddressConnector.Settings(
        address="here", url="http://localhost:81", token=Secret("hush-hush")
    )
    assert origin(found, "url", "letters")[1] == "mixed"


def test_part_of_an_expression_from_the_environment_beats_the_mapping(tmp_path: Path) -> None:
    service = {"connector": "AddressConnector", "api_config": {"address": "a", "url": "http://file"}}
    parts: dict[str, Any] = {"workers": {"post": worker("letter>letters")}, "services": {"letters": service}}
    assert planned(tmp_path, "post", **parts).services["letters"].settings.url == "http://file"
    found = planned(tmp_path, "post", env={"ADDRESS_HOST": "far"}, **parts)
    assert found.services["letters"].settings.url == "http://far:80"


def test_a_route_to_a_service_that_is_not_there(tmp_path: Path) -> None:
    parts: dict[str, Any] = {"workers": {"w": worker("x>nothing")}, "services": {"somethin": {"connector": "C"}}}
    assert problems_of(tmp_path, "w", **parts)[0] == (
        "error: $.workers.w.job_service_required_map[0].worker_service: there is no service 'nothing'"
    )


def test_secrets_stay_hidden(tmp_path: Path) -> None:
    env = {"IMAGE_API_KEY": "key-of-mine", "IMAGE_URL": "https://me:pass-word@host/", "STYLE_TOKEN": "hush-hush"}
    found = planned(tmp_path, "art", env=env, **images(style="${STYLE_TOKEN}", api_key="in-the-file-key"))
    assert found.services["images"].settings.api_key.reveal() == "key-of-mine"
    assert origin(found, "api_key")[0] == "***"
    assert origin(found, "style")[0] == "***"
    for secret in ("key-of-mine", "pass-word", "hush-hush", "in-the-file-key"):
        assert secret not in str(found.services["images"].origins)
    without = planned(tmp_path, "art", env={}, **images(api_key="in-the-file-key"))
    assert without.services["images"].settings.api_key.reveal() == "in-the-file-key"
    assert "in-the-file-key" not in repr(without)
    assert [p.message for p in without.warnings] == ["is a secret in plain text"]


def test_a_secret_that_does_not_fit_is_not_shown(tmp_path: Path) -> None:
    lines = problems_of(tmp_path, "art", env={**KEY, "PASSWORD": "hush-hush"}, **images(timeout="${PASSWORD}"))
    assert lines == ["error: $.services.images.api_config.timeout: the value does not fit timeout: a number is wanted"]


def test_differences_from_the_fleet_that_the_environment_meets(tmp_path: Path) -> None:
    env = {**KEY, "EMPTY": "", "QUOTE": 'a"b', "LINES": "a\nb"}
    parts = images(base_url="http://${EMPTY:-d}", style="${QUOTE}${LINES}")
    assert [p.message for p in planned(tmp_path, "art", env=env, **parts).warnings] == [
        "EMPTY is set but empty, so its default is used",
        "the value of QUOTE contains a quote or a backslash",
        "the value of LINES contains a line break or another control character",
    ]


def test_a_process_that_is_one_worker(tmp_path: Path) -> None:
    mapping = load(
        tmp_path, workers={"echo": worker("x>echo")}, services={"echo": {"connector": "EchoConnector"}}
    ).checked()
    found = plan(mapping, "", env={}, gpus=0, find_connector=find, single=("m7-worker-echo-3", ""))
    assert [(w.name, w.count, w.worker_id) for w in found.workers] == [("echo", 1, "m7-worker-echo-3")]


def test_the_fleets_file_is_resolved_lazily() -> None:
    mapping = load_mapping(FLEET_FILE).checked()

    def finder(name: str, path: str | None) -> type[Any] | None:
        assert path == "./redis-direct-worker.js"
        return ImageConnector if name.startswith("OpenAI") else None

    env = {
        **KEY,
        "OPENAI_API_KEY": "k",
        "OPENAI_IMAGE_MODEL": "m",
        "CLOUD_STORAGE_PROVIDER": "azure",
    }
    # OPENAI_BASE_URL has no default in one service only: the others are not disturbed, that one is.
    with pytest.raises(ConfigError) as caught:
        plan(mapping, "openai:auto", env=env, gpus=0, find_connector=finder)
    (problem,) = caught.value.problems
    assert (problem.path, problem.column, problem.variable) == (
        '$.services["openai-responses"].api_config.base_url',
        1,
        "OPENAI_BASE_URL",
    )
    env["OPENAI_BASE_URL"] = "http://localhost:1/v1"
    found = plan(mapping, "openai:auto", env=env, gpus=0, find_connector=finder)
    assert list(found.workers[0].routes) == ["openai_text", "openai_image", "openai_img2img", "openai_responses"]
    assert found.services["openai-image"].settings.web.timeout == 60.0


texts = st.lists(
    st.sampled_from(["${A}", "${A:-", "}", "${B:-5}", "${C?", "{", "5", "true", "-", "x", "$$", " ", "é"]), max_size=5
).map("".join)
values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts | st.text(max_size=5)
config_names = st.sampled_from(["api_key", "base_url", "timeout", "max_retries", "verify", "quality", "style", "other"])
variables = st.sampled_from("A B C IMAGE_API_KEY IMAGE_URL IMAGE_TIMEOUT IMAGE_QUALITY IMAGE_STYLE".split())


@settings(max_examples=300)
@given(st.dictionaries(config_names, values), st.dictionaries(variables, texts | st.text(max_size=5)))
def test_only_config_errors_come_out(api_config: dict[str, Any], env: dict[str, str]) -> None:
    mapping = ServiceMapping(
        workers={"art": WorkerType(job_service_required_map=(Route(job_service_required="p", worker_service="s"),))},
        services={"s": Service(connector="ImageConnector", api_config=api_config)},
    )
    found = errors = None
    try:
        found = plan(mapping, "art", env=env, gpus=0, find_connector=find)
    except ConfigError as error:
        errors = [p for p in error.problems if p.severity == "error"]
    assert errors != []
    if found is not None:
        made = found.services["s"].settings
        assert isinstance(made.web.timeout, float)
        assert made.api_key.reveal().strip()
    shown = explain(mapping, "p", env=env, find_connector=find).chains[0]
    assert (found is None) == any(p.severity == "error" for p in shown.problems)

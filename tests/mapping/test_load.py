"""Reading a mapping file: what is right is taken, everything that is wrong is named with its full path."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emp_trio.errors import ConfigError
from emp_trio.mapping import load_mapping
from emp_trio.mapping.diagnostics import MOST
from emp_trio.mapping.document import LARGEST

from .support import FLEET_FILE, load, said, worker

SERVICE = {"connector": "EchoConnector"}


def write(tmp_path: Path, data: bytes | str) -> Path:
    path = tmp_path / "mapping.json"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_shipped_mapping_has_every_worker_and_service_and_no_problem() -> None:
    loaded = load_mapping(None, strict=True)
    assert said(loaded.problems) == []
    mapping = loaded.checked()
    assert list(mapping.workers) == [
        "emprops-app",
        "comfyui",
        "mock",
        "comfyui-remote",
        "simulation-websocket",
        "simulation-http",
        "a1111",
        "openai",
        "openai-response",
        "gemini",
        "ollama",
    ]
    assert len(mapping.services) == 12
    assert {s.connector for s in mapping.services.values()} == set(mapping.connectors)


def test_a_file_of_the_fleet_loads_unchanged() -> None:
    loaded = load_mapping(FLEET_FILE)
    assert said(loaded.problems) == [
        "warning: $.services.ollama.resource_binding: unknown field",
        "warning: $.services.ollama.installer_options: unknown field",
    ]
    ollama = loaded.checked().services["ollama"]
    assert (ollama.type, ollama.installer, ollama.port) == (
        "daemon_service",
        "OllamaInstallerService",
        "${OLLAMA_BASE_PORT:-11434}",
    )
    assert loaded.mapping.services["comfyui"].telemetry_logs[0].path == "/workspace/logs/comfyui*.log"


def test_unknown_fields_are_errors_when_strict() -> None:
    with pytest.raises(ConfigError) as caught:
        load_mapping(FLEET_FILE, strict=True).checked()
    assert [p.path for p in caught.value.problems] == [
        "$.services.ollama.resource_binding",
        "$.services.ollama.installer_options",
    ]


@pytest.mark.parametrize(
    "kind",
    ["internal", "external", "pm2_service", "daemon_service", "managed_service", "external_api", "external_service"],
)
def test_service_kinds(tmp_path: Path, kind: str) -> None:
    assert load(tmp_path, services={"s": {**SERVICE, "type": kind}}).checked().services["s"].type == kind


def test_all_problems_come_out_in_one_run_with_full_paths(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        workers={
            "openai": {
                "services": ["openai-image", 5],
                "is_gpu_bound": "no",
                "job_service_required_map": [{"job_service_required": "openai_image", "worker_servce": "openai-image"}],
                "required_env": ["${OPENAI_API_KEY}"],
            },
            "bare": {},
        },
        services={
            "openai-image": {
                **SERVICE,
                "api_config": {"body": {"parts": [60, "${A"]}, "base_url": "http://${HOST", "x": "${A.B}${C"},
                "type": "external_apy",
                "apiconfig": {},
                "telemetry_logs": [{"path": "/x"}],
            },
            "list": [],
        },
        servces={},
    )
    assert said(loaded.problems) == [
        "error: $.workers.openai.job_service_required_map[0].worker_service: is missing",
        "warning: $.workers.openai.job_service_required_map[0].worker_servce: unknown field "
        "(did you mean worker_service?)",
        "error: $.workers.openai.services[1]: Expected `str`, got `int`",
        "error: $.workers.openai.is_gpu_bound: Expected `bool`, got `str`",
        "error: $.workers.openai.required_env[0]: Expected `str` matching regex '^[A-Za-z_][A-Za-z0-9_]*$'",
        "error: $.workers.bare.job_service_required_map: is missing",
        "error: $.services[\"openai-image\"].type: unknown value 'external_apy' (did you mean external_api?)",
        'error: $.services["openai-image"].api_config.body.parts[1] column 1: `${` at column 1 is not closed '
        "(add the missing `}`, or write `$${` for a literal `${`)",
        'error: $.services["openai-image"].api_config.base_url column 8: `${` at column 8 is not closed '
        "(add the missing `}`, or write `$${` for a literal `${`)",
        "error: $.services[\"openai-image\"].api_config.x column 1: '.' can't be part of a variable name "
        "(ASCII letters, digits and `_`)",
        'error: $.services["openai-image"].telemetry_logs[0].name: is missing',
        'warning: $.services["openai-image"].apiconfig: unknown field (did you mean api_config?)',
        "error: $.services.list: must be an object, not a list",
        "warning: $.servces: unknown field (did you mean services?)",
    ]
    with pytest.raises(ConfigError, match="11 errors"):
        loaded.checked()


def test_names_that_lead_nowhere_are_warnings(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        workers={"w": worker("a>servce", "a>service", services=["nothing"])},
        connectors={"EkoConnector": {}},
        services={"service": SERVICE},
    )
    assert said(loaded.problems) == [
        "warning: $.workers.w.job_service_required_map[0].worker_service: there is no service 'servce' "
        "(did you mean service?)",
        "warning: $.workers.w.job_service_required_map[1].job_service_required: 'a' stands here twice; "
        "the first entry is used",
        "warning: $.workers.w.services[0]: there is no service 'nothing'",
        "warning: $.services.service.connector: 'EchoConnector' is not in connectors (did you mean EkoConnector?)",
    ]


def test_doubtful_texts_are_warnings(tmp_path: Path) -> None:
    texts = {
        "hyphen": "${A-B}",
        "spaces": "${A:- x }",
        "twice": "${A:-a:-b}",
        "nested": "${A:-${B}}",
        "escape": "cost $$5",
        "${KEY}": "plain",
        "fine": "${A:-https://h:8080/p?q=1}",
    }
    found = [
        (p.path.rsplit("api_config")[1], p.message)
        for p in load(tmp_path, services={"s": {**SERVICE, "api_config": texts}}).problems
    ]
    assert found == [
        (".hyphen", "this is A with default 'B'"),
        (".spaces", "the default of A keeps its spaces"),
        (".twice", "the default of A is 'a:-b'"),
        (".nested", "the default of A holds a reference"),
        (".escape", "`$$` stands for one `$`"),
        ('["${KEY}"]', "a reference in a name is not replaced"),
    ]


def test_names_twice_and_numbers_that_are_none(tmp_path: Path) -> None:
    text = """{"services": {"s": {"connector": "C", "connector": "D", "api_config": {"timeout": NaN, "x": 1e999}},
        "s": {"connector": "E", "api_config": {"a": -Infinity, "b": %s, "half": "\\ud83d"}}}}""" % ("9" * 5000)
    problems = load_mapping(write(tmp_path, text)).problems
    assert [(p.path, p.message.split(",")[0]) for p in problems] == [
        ("$.services.s", "this name stands twice in its object"),
        ("$.services.s.api_config.a", "NaN"),
        ("$.services.s.api_config.b", "NaN"),
        ("$.services.s.api_config.half", "the text holds half of a surrogate pair"),
    ]


UNREADABLE: list[tuple[str, bytes, str]] = [
    ("empty", b"", "empty"),
    ("blank", b" \n", "empty"),
    ("latin-1", '{"workers": {"é": 1}}'.encode("latin-1"), "not UTF-8 at byte 14"),
    ("utf-16", '{"workers": {}}'.encode("utf-16"), "not UTF-8 at byte 0"),
    ("cut", b'{"workers": {', "not JSON: .* at line 1 column 14"),
    ("comment", b'{\n  // no\n  "workers": {}}', "not JSON: .* at line 2 column 3"),
    ("a list", b"[]", "not a JSON object but a list"),
    ("a text", b'"workers"', "not a JSON object but text"),
    ("null", b"null", "not a JSON object but null"),
    ("deep lists", b'{"workers": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nested"),
    ("deep objects", b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested"),
    ("very deep", b"[" * 200_000, "nested"),
    ("rather deep", b'{"a":' * 70 + b"1" + b"}" * 70, "nested more than 64 levels"),
    ("large", b'{"workers": {}}' + b" " * LARGEST, "larger than 8 MiB"),
]


@pytest.mark.parametrize(("data", "words"), [row[1:] for row in UNREADABLE], ids=[row[0] for row in UNREADABLE])
def test_unreadable_file(tmp_path: Path, data: bytes, words: str) -> None:
    path = write(tmp_path, data)
    with pytest.raises(ConfigError, match=words) as caught:
        load_mapping(path)
    assert str(path) in caught.value.message


def test_fifty_megabytes_are_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "mapping.json"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    with pytest.raises(ConfigError, match="larger than 8 MiB"):
        load_mapping(path)


@pytest.mark.parametrize(
    ("name", "words"), [("nowhere.json", "no such file"), (".", "is a directory"), ("a\0b", "null")]
)
def test_no_file(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_mapping(tmp_path / name)


def test_byte_order_mark_is_allowed(tmp_path: Path) -> None:
    assert load_mapping(write(tmp_path, b'\xef\xbb\xbf{"workers": {}}')).problems == ()


def test_a_file_of_nothing_but_problems_ends_early(tmp_path: Path) -> None:
    loaded = load(tmp_path, services={f"service{i}": {"conector": i, "wrong": 1} for i in range(20_000)})
    assert len(loaded.problems) == MOST + 1
    assert "the rest was not looked at" in loaded.problems[-1].message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["${A", "${A-b}"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "workers services connectors service_types machine_capabilities s w connector type api_config path "
                "job_service_required_map job_service_required worker_service required_env telemetry_logs ports".split()
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(["workers", "services", "connectors", "machine_capabilities"]), json_values))
def test_no_json_value_ends_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "anything.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    loaded = load_mapping(path)
    assert all(problem.path.startswith("$") for problem in loaded.problems)


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_no_bytes_end_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.json"
    path.write_bytes(data)
    with contextlib.suppress(ConfigError):
        load_mapping(path)

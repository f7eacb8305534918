"""The committed JSON Schema is the one of the structs, and says of a mapping what the loader says."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emp_trio.mapping import load_mapping, mapping_schema

from .support import FLEET_FILE, mapping_file

MAPPINGS = Path(__file__).parents[2] / "mappings"
KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


def faults(value: Any, schema: dict[str, Any], definitions: dict[str, Any], path: str = "$") -> Iterator[str]:
    """Paths at which ``value`` breaks the schema; knows the keywords that ours uses, and fails on any other."""
    known = {"$ref", "anyOf", "type", "enum", "pattern", "properties", "required", "additionalProperties", "items"}
    notes = {"$schema", "$defs", "title", "description", "default"}
    assert schema.keys() <= known | notes
    if "$ref" in schema:
        yield from faults(value, definitions[schema["$ref"].rsplit("/", 1)[1]], definitions, path)
    if "anyOf" in schema and all(any(faults(value, one, definitions, path)) for one in schema["anyOf"]):
        yield path
    if "enum" in schema and value not in schema["enum"]:
        yield path
    if "type" in schema:
        fits = isinstance(value, KINDS[schema["type"]])
        if not fits or (isinstance(value, bool) and schema["type"] != "boolean"):
            yield path
            return
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield path
    if isinstance(value, dict):
        yield from (f"{path}.{name}" for name in schema.get("required", ()) if name not in value)
        for name, item in value.items():
            member = schema.get("properties", {}).get(name, schema.get("additionalProperties", True))
            if member is False:
                yield f"{path}.{name}"
            elif isinstance(member, dict):
                yield from faults(item, member, definitions, f"{path}.{name}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from faults(item, schema.get("items", {}), definitions, f"{path}[{index}]")


def check(document: Any) -> list[str]:
    schema = mapping_schema()
    return list(faults(document, schema, schema["$defs"]))


def test_committed_schema_is_current() -> None:
    committed = (MAPPINGS / "service-mapping.schema.json").read_text(encoding="utf-8")
    assert committed == json.dumps(mapping_schema(), indent=2) + "\n", (
        "the structs have changed: run  emp-trio schema > mappings/service-mapping.schema.json"
    )


def test_shipped_mapping_fits_and_names_its_schema() -> None:
    document = json.loads((MAPPINGS / "service-mapping.json").read_text(encoding="utf-8"))
    assert check(document) == []
    assert (MAPPINGS / document["$schema"]).is_file()


def test_the_fleets_mapping_fits_but_for_its_unknown_fields() -> None:
    document = json.loads(FLEET_FILE.read_text(encoding="utf-8"))
    assert check(document) == ["$.services.ollama.resource_binding", "$.services.ollama.installer_options"]


@pytest.mark.parametrize(
    "document",
    [
        {"services": {"s": {}}},
        {"services": {"s": {"connector": 5}}},
        {"services": {"s": {"connector": "C", "type": "other"}}},
        {"services": {"s": {"connector": "C", "installer_config": {"branch": []}}}},
        {"services": {"s": {"connector": "C", "required_env": ["A B"]}}},
        {"services": {"s": {"connector": "C", "is_gpu_bound": 1}}},
        {"workers": {"w": {"job_service_required_map": [{"job_service_required": "a"}]}}},
        {"workers": []},
        {"wokers": {}},
    ],
)
def test_schema_and_loader_refuse_the_same(tmp_path: Path, document: dict[str, Any]) -> None:
    loaded = load_mapping(mapping_file(tmp_path, **document), strict=True)
    assert check(document) == [p.path for p in loaded.problems if p.severity == "error"] != []

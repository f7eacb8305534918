"""Generate the JSON Schema of the mapping file from its structs: :func:`mapping_schema`."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from emp_trio.mapping.schema import ServiceMapping

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def mapping_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a service mapping.

    It rejects unknown fields, as ``--strict`` does, so that an editor marks them.
    """
    (root,), definitions = msgspec.json.schema_components([ServiceMapping], ref_template="#/$defs/{name}")
    for definition in definitions.values():
        if definition.get("type") == "object" and "properties" in definition:
            definition["additionalProperties"] = False
        if "description" in definition:
            definition["description"] = " ".join(definition["description"].split())
    return {"$schema": DIALECT, "title": "emp-trio service mapping", **root, "$defs": definitions}

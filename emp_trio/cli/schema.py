"""``emp-trio schema``."""

from __future__ import annotations


def schema() -> None:
    """Print the JSON Schema of the mapping file.

    Set "$schema" in the mapping to this file, and your editor validates it.

    For example:

        emp-trio schema > service-mapping.schema.json
    """
    import json

    from emp_trio.mapping import mapping_schema

    print(json.dumps(mapping_schema(), indent=2))

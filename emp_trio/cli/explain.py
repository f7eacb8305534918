"""``emp-trio explain``."""

from __future__ import annotations

import json as json_text
import os
from typing import TYPE_CHECKING, Any

from emp_trio.cli.mapping_option import MappingOption, mapping_file
from emp_trio.cli.output import OK, console, print_json, print_table
from emp_trio.printable import printable

if TYPE_CHECKING:
    from emp_trio.mapping import Chain, Origin


def explain(job_type: str, /, *, mapping: MappingOption = None, json: bool = False) -> int:
    """Show the connector and the settings that a job type gets.

    For each worker type that takes such jobs: the worker service, the connector,
    and the source of each setting: text of the mapping (literal), environment
    or default. Secrets are printed as ***.

    For example:

        emp-trio explain openai_image
        emp-trio explain comfyui --mapping service-mapping.json --json

    Args:
        job_type: Job type ("service_required" of a job).
        json: Print one JSON object.
    """
    from emp_trio.mapping import explain as explained
    from emp_trio.mapping import load_mapping
    from emp_trio.services.registry import find_connector

    env = dict(os.environ)
    loaded = load_mapping(mapping_file(mapping, env))
    explanation = explained(loaded.checked(), job_type, env=env, find_connector=find_connector)
    if json:
        print_json(explanation)
        return OK
    for chain in explanation.chains:
        _print(job_type, chain)
    return OK


def _print(job_type: str, chain: Chain) -> None:
    from rich.text import Text

    out = console()
    kind = f" ({chain.service_type})" if chain.service_type else ""
    steps = [
        ("job type", job_type),
        ("worker type", f"{chain.worker_type}, by {chain.path}"),
        ("service", chain.worker_service + kind),
        ("connector", f"{chain.connector or 'none'}, {chain.connector_class or 'not available'}"),
    ]
    for variable in dict.fromkeys(need.variable for need in chain.required):
        needs = [need for need in chain.required if need.variable == variable]
        state = "set" if needs[0].is_set else "MISSING"
        steps.append(("requires", f"{variable}, {state}, for {', '.join(need.by for need in needs)}"))
    for name, value in steps:
        out.print(Text(f"{name:<13}", style="bold") + Text(printable(value)))
    if chain.settings:
        print_table(("setting", "value", "source", "from"), map(_row, chain.settings))
    for problem in chain.problems:
        style = "bold red" if problem.severity == "error" else "bold yellow"
        out.print(Text(f"{problem.severity}: ", style=style) + Text(printable(str(problem))))
    out.print()


def _row(origin: Origin) -> tuple[str, str, str, str]:
    name = origin.name if origin.part is None else f"{origin.part}.{origin.name}"
    place = origin.path + (f"  {origin.text}" if origin.text is not None else "")
    return name, _shown(origin.value), origin.source, place


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json_text.dumps(value, ensure_ascii=False)

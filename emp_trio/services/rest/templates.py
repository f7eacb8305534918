"""Bodies of requests as templates: JSON in which some objects stand for values of the job. Pure.

::

    {"prompt": {"$payload": "/prompt"},                          a value of the payload; it must be there
     "steps": {"$payload": "/options/steps", "$default": 20},    or this, where the payload has none
     "seed": {"$payload": "/seed", "$optional": true},           or the member is left out
     "reference": {"$job": "id"},                                a fact of the job
     "$$ref": "x"}                                               a member whose name is really $ref

Everything else is sent as it stands. What a payload holds is put in as it is and never looked at for templates. A null
in the payload counts as nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from emp_trio.errors import InvalidJob
from emp_trio.jobs import Job
from emp_trio.services.rest.pointers import pointed, steps

JOB_FACTS: Final = ("id", "type", "attempt", "customer_id", "workflow_id")
"""What ``{"$job": ...}`` may name."""


def check_template(template: Any, place: str = "") -> None:
    """Look for mistakes before there is any job.

    Args:
        place: JSON pointer to the template, for the message.

    Raises:
        ValueError: says where and what is wrong.
    """
    if isinstance(template, list):
        for index, item in enumerate(template):
            check_template(item, f"{place}/{index}")
    elif isinstance(template, dict) and _is_placeholder(template):
        _check_placeholder(template, place or "the whole body")
        if not place and template.get("$optional"):
            raise ValueError("the whole body can't be $optional")
    elif isinstance(template, dict):
        for name, item in template.items():
            check_template(item, f"{place}/{name}")


def fill(template: Any, job: Job, payload: Mapping[str, Any]) -> Any:
    """The body of one job.

    Args:
        template: one that :func:`check_template` has nothing against.
        payload: what of the job's payload the service may see.

    Raises:
        InvalidJob: (missing_required_field) the payload lacks something that the template needs.
    """
    if isinstance(template, dict) and _is_placeholder(template):
        return _value(template, job, payload)
    if isinstance(template, dict):
        filled = ((_plain(name), fill(item, job, payload)) for name, item in template.items())
        return {name: item for name, item in filled if item is not msgspec.UNSET}
    if isinstance(template, list):
        items = (fill(item, job, payload) for item in template)
        return [item for item in items if item is not msgspec.UNSET]
    return template


def _value(placeholder: dict[str, Any], job: Job, payload: Mapping[str, Any]) -> Any:
    if "$job" in placeholder:
        return getattr(job, placeholder["$job"])
    place = placeholder["$payload"]
    found = pointed(payload, place)
    if found is not msgspec.UNSET and found is not None:
        return found
    if "$default" in placeholder:
        return placeholder["$default"]
    if placeholder.get("$optional"):
        return msgspec.UNSET
    raise InvalidJob(f"the payload has nothing at {place}", reason="missing_required_field")


def _check_placeholder(placeholder: dict[str, Any], place: str) -> None:
    names = placeholder.keys()
    if names == {"$job"}:
        if placeholder["$job"] not in JOB_FACTS:
            raise ValueError(f"{place}: $job must be one of {', '.join(JOB_FACTS)}")
        return
    if "$payload" not in names or not names <= {"$payload", "$default", "$optional"}:
        raise ValueError(
            f"{place}: an object with {', '.join(sorted(names))} is no template: there are $payload (with $default or "
            "$optional) and $job; write $$ for a name that really begins with $"
        )
    if {"$default", "$optional"} <= names:
        raise ValueError(f"{place}: $default and $optional exclude each other")
    if not isinstance(placeholder.get("$optional", True), bool):
        raise ValueError(f"{place}: $optional must be true or false")
    if not isinstance(placeholder["$payload"], str):
        raise ValueError(f"{place}: $payload must be a JSON pointer such as /prompt")
    try:
        steps(placeholder["$payload"])
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _is_placeholder(template: dict[str, Any]) -> bool:
    return any(name.startswith("$") and not name.startswith("$$") for name in template)


def _plain(name: str) -> str:
    return name[1:] if name.startswith("$$") else name

"""Job payloads as requests of ``txt2img`` and ``img2img`` (connector reference 6; A1111 reference 10.2). Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from emp_trio.errors import InvalidJob
from emp_trio.protocols.parsing import Lenient, parse_or_empty
from emp_trio.secrets import excerpt

Endpoint = Literal["txt2img", "img2img"]

_AROUND: Final = frozenset({"endpoint", "method", "payload", "ctx"})  # of a payload, and no parameters
_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class A1111Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask of A1111.

    Attributes:
        endpoint: which call.
        body: its JSON body; images stand in it as the job gave them.
        warnings: what was left out of the payload or changed, for the result and the log.
    """

    endpoint: Endpoint
    body: dict[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def checkpoint(self) -> str | None:
        """The model that the request asks for, or None for the one at hand."""
        found = self.body.get("override_settings", {}).get("sd_model_checkpoint")
        return found if isinstance(found, str) and found else None

    @property
    def images(self) -> tuple[Any, ...]:
        """Every input image: the images to start from, then the mask."""
        mask = self.body.get("mask")
        return (*self.body.get("init_images", ()), *(() if mask is None else (mask,)))


def read_payload(payload: Mapping[str, Any], *, restore_model: bool) -> A1111Request:
    """The request of a job.

    The parameters are those of ``payload.payload``, as the monitor sends them, or of the payload itself. They are
    passed as they are, but for nulls, which count as absent. Without ``endpoint``, images make it img2img.

    Args:
        payload: the job's payload.
        restore_model: ``override_settings_restore_afterwards`` of a request that does not say.

    Raises:
        InvalidJob: the endpoint is unknown, or what it needs is missing.
    """
    inner = payload.get("payload")
    if not isinstance(inner, Mapping | None):
        raise InvalidJob("payload.payload must be an object", reason="invalid_format")
    given = payload if inner is None else inner
    body = {name: value for name, value in given.items() if name not in _AROUND and value is not None}
    warnings = []
    ignored = sorted(set(payload) - _AROUND) if inner is not None else []
    if ignored:
        warnings.append(f"left out, as it stands beside payload.payload: {excerpt(', '.join(ignored), 200)}")
    images = body.get("init_images")
    if isinstance(images, str):
        body["init_images"] = images = [images]
    endpoint = _endpoint(payload, img2img=bool(images))
    _check(endpoint, body)
    if body.get("send_images") is False:
        warnings.append("send_images: false is left out: the answer is the only place where the images are")
    body["send_images"] = True
    body.setdefault("override_settings_restore_afterwards", restore_model)
    return A1111Request(endpoint=endpoint, body=body, warnings=tuple(warnings))


def _endpoint(payload: Mapping[str, Any], *, img2img: bool) -> Endpoint:
    given = payload.get("endpoint")
    if given is None:
        return "img2img" if img2img else "txt2img"
    match str(given).strip().strip("/").removeprefix("sdapi/v1/"):
        case "txt2img":
            return "txt2img"
        case "img2img":
            return "img2img"
    raise InvalidJob(
        f"payload.endpoint {excerpt(str(given), 80)!r} is not txt2img or img2img", reason="unsupported_operation"
    )


def _check(endpoint: Endpoint, body: Mapping[str, Any]) -> None:
    if endpoint == "txt2img" and "prompt" not in body:
        raise InvalidJob("the payload has no prompt", reason="missing_required_field")
    if endpoint == "img2img" and not body.get("init_images"):
        raise InvalidJob("img2img needs init_images, a list of images", reason="missing_required_field")
    for name, kind in (("init_images", list), ("override_settings", dict)):
        if not isinstance(body.get(name, kind()), kind):
            what = "a list" if kind is list else "an object"
            raise InvalidJob(f"the parameter {name} must be {what}", reason="invalid_format")


def with_images(request: A1111Request, encoded: Mapping[Any, str]) -> dict[str, Any]:
    """The body with every image as bare base64, the form that every server takes.

    Args:
        encoded: base64 by what the job gave.
    """
    body = dict(request.body)
    if "init_images" in body:
        body["init_images"] = [encoded[image] for image in body["init_images"]]
    if "mask" in body:
        body["mask"] = encoded[body["mask"]]
    return body


def task_id(job_id: str, attempt: int) -> str:
    """The name of an attempt's generation, in the web UI's own form (A1111 reference 10.3)."""
    plain = job_id if _PLAIN_ID.fullmatch(job_id) else hashlib.sha256(job_id.encode()).hexdigest()[:32]
    return f"task({plain}-{attempt})"


def unknown_fields(body: Mapping[str, Any], known: Collection[str] | None) -> tuple[str, ...]:
    """Parameters that the server would ignore without a word; none where it does not say which it has."""
    return tuple(sorted(name for name in body if known is not None and name not in known))


class _Schema(msgspec.Struct, frozen=True):
    """A schema of the parameters of a call, or where it stands."""

    ref: Lenient[str] = msgspec.field(name="$ref", default="")
    properties: Lenient[dict[str, Any]] = {}


def documented_fields(schema: Any, endpoint: Endpoint) -> frozenset[str] | None:
    """Names of the parameters of an endpoint in ``/openapi.json``, or None where it does not say."""
    path = ("paths", f"/sdapi/v1/{endpoint}", "post", "requestBody", "content", "application/json", "schema")
    found = parse_or_empty(_Schema, _member(schema, path))
    if found.ref:
        found = parse_or_empty(_Schema, _member(schema, found.ref.removeprefix("#/").split("/")))
    return frozenset(found.properties) or None


def _member(value: Any, path: Sequence[str]) -> Any:
    for name in path:
        value = parse_or_empty(dict[str, Any], value).get(name)
    return value

"""``RestApi``: what both REST connectors have in common: credentials, errors in the service's words, health, files."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import trio

from emp_trio.assets.content import decode_text
from emp_trio.connector_context import Generated, GeneratedFile
from emp_trio.errors import ServiceError
from emp_trio.jobs import JobResult, SavedAsset
from emp_trio.offload import off_loop, weight
from emp_trio.protocols.auth import Auth, auth_secrets
from emp_trio.protocols.fetch import Fetcher
from emp_trio.protocols.http import HttpClient, describe_status
from emp_trio.protocols.http.errors import LONGEST_TEXT, bad_answer
from emp_trio.protocols.part import ConnectorPart, PartSettings
from emp_trio.protocols.wire_json import decode_json
from emp_trio.secrets import Redactor, excerpt
from emp_trio.services.address import auth_of
from emp_trio.services.connector import Health
from emp_trio.services.outputs import OutputFiles, checked, fetched, kept
from emp_trio.services.probing import NO_ROUTE, not_told
from emp_trio.services.redaction import redacted
from emp_trio.services.rest.answers import Found, error_text
from emp_trio.services.rest.calls import RestCall
from emp_trio.services.rest.settings import AnswerSettings, LoginSettings
from emp_trio.services.results import asset_data, saved_asset


class RestApi(ConnectorPart):
    """Stands before ``Http`` among a connector's bases, with the :class:`LoginSettings` and :class:`AnswerSettings`
    among its settings."""

    part_settings: ClassVar[PartSettings] = LoginSettings

    def auth(self) -> Auth:
        """The configured credentials."""
        return auth_of(self.settings_of(LoginSettings))

    def describe_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
        """Errors by their status, with the text at ``error_at`` where there is one."""
        error = describe_status(status, headers, body)
        error_at = self.settings_of(AnswerSettings).error_at
        if error_at is not None:
            try:
                said = error_text(decode_json(body), error_at)
            except ServiceError:
                said = ""
            if said:
                error.message = excerpt(f"the service answered {status}: {said}", LONGEST_TEXT)
                error.args = (error.message,)
        return error


async def rest_health(http: HttpClient, path: str | None, auth: Auth) -> Health:
    """Whether ``path`` is answered with a 2xx; without it, whether the service answers at all, and does not refuse the
    credentials."""
    try:
        await http.request("GET", path or "", expect="any", retries=0)
    except ServiceError as error:
        refused = error.status in (401, 403) and auth_secrets(auth)
        if path is not None and (silent := not_told(error)) is not None:
            return silent
        answers = error.status is not None and (error.status < 500 or error.status in NO_ROUTE)
        if path is None and answers and not refused:
            return Health(healthy=True)
        return Health(healthy=False, detail=error.message)
    return Health(healthy=True)


async def with_files(
    http: HttpClient, fetcher: Fetcher, found: Found, *, answer: AnswerSettings, auth: Auth, work: str = ""
) -> Generated:
    """What was found in a finished answer, with its files.

    Args:
        http, fetcher: get the files that are given by an address.
        answer: says whether they are given as base64.
        auth: the credentials of the calls: they are taken out of what is quoted.
        work: the service's id of the work.

    Raises:
        ServiceError: it has files, and none of them can be had.
    """
    had = OutputFiles(files=(), places=())
    if found.files:
        had = await kept([functools.partial(_file, http, fetcher, answer, source) for source in found.files])
    warnings = [*found.missing, *had.warnings]
    known = Redactor(auth_secrets(auth))
    data: dict[str, Any] = {"result": await off_loop(weight(found.result), known.known_in, found.result)}
    if found.text is not None:
        data |= {"text": await off_loop(len(found.text), known.known, found.text)}
    if warnings:
        data |= {"warnings": [known.known(warning) for warning in warnings]}
    return Generated(files=had.files, data=data | ({"service_job_id": work} if work else {}))


def rest_result(call: RestCall, facts: dict[str, Any], saved: list[SavedAsset], *, service_type: str) -> JobResult:
    """The result of a job, from the data of :func:`with_files` or of an answer that is itself the file or text."""
    data: dict[str, Any] = {name: facts[name] for name in ("result", "text") if name in facts}
    if "text" in data:
        data |= {"text_content": data["text"], "content_type": "text"}
    if saved:
        data |= asset_data(saved[0])
    metadata: dict[str, Any] = {"saved_asset": saved_asset(saved[0])} if saved else {}
    if facts.get("warnings"):
        metadata["warnings"] = facts["warnings"]
    service = {"service_version": "rest", "service_type": service_type}
    return JobResult(
        success=True,
        data=data,
        metadata=metadata,
        output_files=tuple(asset.output_file() for asset in saved),
        service_metadata=service | {name: facts[name] for name in ("service_job_id",) if name in facts},
        raw_request_payload=redacted(call.body),
    )


async def _file(http: HttpClient, fetcher: Fetcher, answer: AnswerSettings, source: str) -> GeneratedFile:
    if not source.strip():
        raise bad_answer("the answer gives no file at this place", reason="missing_expected_data")
    if source[:5].lower() == "data:" or answer.files_are == "base64":
        declared, data = await trio.to_thread.run_sync(decode_text, source)
        return checked(data, declared, images=False)
    data, declared = await fetched(http, fetcher, source)
    return checked(data, declared, images=False)

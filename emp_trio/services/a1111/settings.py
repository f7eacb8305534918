"""Settings of the A1111 connector, and the address that follows from them (A1111 reference 7, 10)."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from emp_trio.errors import ConfigError
from emp_trio.protocols.http.settings import HttpSettings, Seconds
from emp_trio.protocols.urls import shown_url
from emp_trio.secrets import Secret
from emp_trio.services.address import address_of, without_user
from emp_trio.services.probing import HealthPath
from emp_trio.settings import Env, part_of

S = TypeVar("S", bound=msgspec.Struct)


class A1111Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server is, how to log in, and how its jobs are watched. All times in seconds.

    Attributes:
        host, port, secure: where it is, unless ``base_url`` says; ``secure`` means TLS.
        username, password: of ``--api-auth``, or of a proxy; sent as Basic credentials.
        api_key: of a proxy; sent as a bearer token, or as it is in the header ``api_key_header`` where that is set.
        restore_model: load the server's own model back after a job that asked for another one. Jobs that name none then
            always get that model; but switching costs as much as many a job.
        call_timeout: for one short call; a busy server answers late.
        health_path: what is asked for to see whether a server is well; ``none`` asks nothing. A server that does not
            know the path counts as healthy.
        answer_timeout: without a byte of a generation's answer. It comes when the images are done, so this is longer
            than any job may take: the job's own limit ends it.
        progress_interval: between two looks at the progress.
        interrupt_interval: between two interrupts of a job that goes on.
        cleanup_timeout: for stopping a generation when its job is stopped.
    """

    host: Annotated[str, Env("${A1111_HOST:-localhost}")] = "localhost"
    port: Annotated[int, msgspec.Meta(ge=1, le=65535), Env("${A1111_PORT:-${A1111_BASE_PORT:-7860}}")] = 7860
    secure: Annotated[bool, Env("${A1111_SECURE:-false}")] = False
    username: Annotated[str, Env("${A1111_USERNAME:-}")] = ""
    password: Annotated[Secret, Env("${A1111_PASSWORD:-}")] = Secret("")
    api_key: Annotated[Secret, Env("${A1111_API_KEY:-}")] = Secret("")
    api_key_header: Annotated[str, Env("${A1111_API_KEY_HEADER:-}")] = ""
    restore_model: bool = False
    call_timeout: Seconds = 30.0
    health_path: Annotated[HealthPath, Env("${A1111_HEALTH_PATH:-/sdapi/v1/memory}")] = "/sdapi/v1/memory"
    answer_timeout: Seconds = 24 * 3600.0
    progress_interval: Seconds = 1.0
    interrupt_interval: Seconds = 1.0
    cleanup_timeout: Seconds = 5.0


def located(settings: S) -> S:
    """Connector settings in which ``http.base_url`` is set and holds no credentials: those become a1111's own.

    Raises:
        ConfigError: an address that can't be read.
    """
    a1111, http = part_of(settings, A1111Settings), part_of(settings, HttpSettings)
    address = http.base_url or address_of(a1111.host, a1111.port, secure=a1111.secure)
    try:
        base, user, password = without_user(address)
    except ValueError as error:
        raise ConfigError(f"the address of A1111 can't be read: {shown_url(address)}") from error
    if user and not a1111.username:
        a1111 = msgspec.structs.replace(a1111, username=user, password=Secret(password))
    return msgspec.structs.replace(settings, a1111=a1111, http=msgspec.structs.replace(http, base_url=base.rstrip("/")))

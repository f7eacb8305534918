"""Check the health of services that may have no health route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Unpack

import msgspec

from emp_trio.errors import EmpTrioError, ServiceError
from emp_trio.protocols.http import CallOptions, HttpClient
from emp_trio.services.connector import Health

HealthPath = Annotated[str, msgspec.Meta(pattern=r"^(none|/.*)\Z")]
"""What is asked for with GET to find out; ``none`` asks nothing."""

NO_ROUTE: Final = frozenset((404, 405, 501))
"""Statuses by which a server says that it does not know the path, and of itself nothing."""


async def probe(
    http: HttpClient,
    path: str,
    judge: Callable[[Any], Awaitable[Health] | Health] | None = None,
    **options: Unpack[CallOptions],
) -> Health:
    """Ask a service whether it is well.

    Args:
        http: the service.
        path: of the settings (:data:`HealthPath`); may be an absolute URL.
        judge: what the JSON of the answer means; without it, any 2xx is well.
        options: of the request.

    Returns:
        not healthy where the service is out of reach, refuses the credentials, or says something else. A server that
        does not know the path (404, 405, 501) does not tell: it counts as healthy, ``told`` is false, and the first
        jobs decide.
    """
    if path == "none":
        return Health(healthy=True, told=False, detail="it is not asked (health_path)")
    try:
        answer = await http.request("GET", path, expect="any" if judge is None else "json", **options)
        if judge is None:
            return Health(healthy=True)
        found = judge(answer.json())
        return found if isinstance(found, Health) else await found
    except EmpTrioError as error:
        return not_told(error) or Health(healthy=False, detail=error.message)


def not_told(error: EmpTrioError) -> Health | None:
    """The health of a server that does not know the path it was asked for; None for other errors."""
    if not isinstance(error, ServiceError) or error.status not in NO_ROUTE:
        return None
    return Health(
        healthy=True,
        told=False,
        detail=f"the service does not tell whether it is well ({error.status}); its first jobs will show. "
        "Set health_path to a path that it knows, or to none",
    )

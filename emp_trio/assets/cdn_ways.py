"""The two ways to a CDN: to the operator's own as it is configured, and to one that a job names, past the guard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import httpx

from emp_trio.assets.cdn import Answered
from emp_trio.assets.stores import storage_failure
from emp_trio.errors import InputUnavailable, InvalidJob
from emp_trio.protocols.fetch.guarded import AddressProblem, addresses_of, check_literal, guarded_reply, parsed_url
from emp_trio.protocols.http.attempts import RequestTrace
from emp_trio.protocols.http.transport import translated
from emp_trio.protocols.urls import keeps_credentials, redirected

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_MOST_REDIRECTS: Final = 5


class CdnWay:
    """A way to one CDN, good for many probes.

    Args:
        client: for the operator's own CDN: its pool, and the proxies of the environment.
        base: address of the CDN.
        own: whether the operator has configured it (``CLOUD_CDN_URL``): its origin is trusted, wherever it is. A job's
            is not, and neither is another origin that either of them redirects to.
        private: whether private networks are open to what is not trusted (``CLOUD_CDN_ALLOW_PRIVATE``).
    """

    def __init__(self, client: httpx.AsyncClient, base: str, *, own: bool, private: bool) -> None:
        self._client = client
        self._own = base if own else None
        self._private = private

    async def ask(self, method: str, url: str, headers: Mapping[str, str]) -> Answered:
        """Make a request, follow its redirects, and read no body. A cancel closes the connection.

        Raises:
            InvalidJob: the address of a job, or where it leads, is not to be asked. The text says nothing about it.
            AssetError: the operator's CDN leads to such an address.
            ServiceError, InputUnavailable: no answer.
        """
        place = url
        for _ in range(_MOST_REDIRECTS + 1):
            answer = await self._hop(method, place, headers)
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or location is None:
                return answer
            try:
                following = redirected(method, place, status=answer.status, location=location)
            except ValueError:
                return answer
            if following is None:
                return answer
            place = following[1]
        return answer

    async def _hop(self, method: str, text: str, headers: Mapping[str, str]) -> Answered:
        trace = RequestTrace()
        try:
            url = parsed_url(text)
            if self._own is not None and keeps_credentials(self._own, text):
                with translated(trace):
                    async with self._client.stream(
                        method, url, headers=headers, extensions={"trace": trace.trace}
                    ) as response:
                        return Answered(status=response.status_code, headers=dict(response.headers.items()))
            async with guarded_reply(method, url, headers, private=self._private, trace=trace) as reply:
                return Answered(status=reply.status, headers=reply.headers)
        except AddressProblem as error:
            raise self._refused(error) from error

    def _refused(self, error: AddressProblem) -> Exception:
        if self._own is None:
            return cdn_refusal(error)
        return storage_failure(
            f"the CDN of CLOUD_CDN_URL redirects to a place that {error.message}",
            hint="CLOUD_CDN_ALLOW_PRIVATE opens private networks to it",
            type="system_error",
            reason="config_error",
            retry=False,
        )


def check_cdn_form(base: str, *, private: bool) -> None:
    """Refuse a job's CDN of which its address alone says that it would not be asked. Asks nobody.

    Raises:
        InvalidJob: the text says nothing about the address.
    """
    try:
        check_literal(parsed_url(base), private=private)
    except AddressProblem as error:
        raise cdn_refusal(error) from error


async def check_cdn(base: str, *, private: bool) -> None:
    """Look a job's CDN up, and refuse one that would not be asked. A name that can't be resolved for now passes.

    Raises:
        InvalidJob: the text says nothing about the address.
    """
    try:
        await addresses_of(parsed_url(base), private=private)
    except AddressProblem as error:
        raise cdn_refusal(error) from error
    except InputUnavailable:
        pass  # it may be there when it is needed


def cdn_refusal(error: AddressProblem) -> InvalidJob:
    """The error for a job whose CDN is not to be asked."""
    return InvalidJob(
        f"the CDN address of ctx.storage.cdnUrl {error.message}. A private CDN is for the operator to set: "
        "CLOUD_CDN_URL, or CLOUD_CDN_ALLOW_PRIVATE for those of jobs"
    )

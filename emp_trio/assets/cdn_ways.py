"""CDN clients: direct for the operator's CDN, guarded against private addresses for a CDN named by a job."""

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
    """Client for one CDN, for any number of probes.

    Args:
        client: HTTP client for the operator's CDN, with the environment's proxies.
        base: URL of the CDN.
        own: whether it is the operator's (``CLOUD_CDN_URL``), whose origin is trusted at any address. A job's CDN, and
            other origins that either redirects to, are not trusted.
        private: whether untrusted origins may be in private networks (``CLOUD_CDN_ALLOW_PRIVATE``).
    """

    def __init__(self, client: httpx.AsyncClient, base: str, *, own: bool, private: bool) -> None:
        self._client = client
        self._own = base if own else None
        self._private = private

    async def ask(self, method: str, url: str, headers: Mapping[str, str]) -> Answered:
        """Send a request and follow redirects, without reading the body. Cancellation closes the connection.

        Raises:
            InvalidJob: the job's address, or the target of its redirect, is not allowed. The message omits the address.
            AssetError: the operator's CDN redirects to such an address.
            ServiceError, InputUnavailable: no response.
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
    """Reject a job's CDN whose URL is not allowed, without a DNS lookup.

    Raises:
        InvalidJob: the text says nothing about the address.
    """
    try:
        check_literal(parsed_url(base), private=private)
    except AddressProblem as error:
        raise cdn_refusal(error) from error


async def check_cdn(base: str, *, private: bool) -> None:
    """Resolve a job's CDN, and reject an address that is not allowed. Accept a name that can't be resolved now.

    Raises:
        InvalidJob: the text says nothing about the address.
    """
    try:
        await addresses_of(parsed_url(base), private=private)
    except AddressProblem as error:
        raise cdn_refusal(error) from error
    except InputUnavailable:
        pass  # it may resolve when it is needed


def cdn_refusal(error: AddressProblem) -> InvalidJob:
    """Return the error for a job whose CDN is not allowed."""
    return InvalidJob(
        f"the CDN address of ctx.storage.cdnUrl {error.message}. A private CDN is for the operator to set: "
        "CLOUD_CDN_URL, or CLOUD_CDN_ALLOW_PRIVATE for those of jobs"
    )

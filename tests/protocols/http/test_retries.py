"""Which calls are repeated, after what pause, and what is left to the queue."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping

import pytest
import trio

from emp_trio.errors import Refused, ServiceError
from emp_trio.protocols.http import HttpSettings
from emp_trio.services.connector import open_connector
from emp_trio.testing.faulty_server import Answer, cut, open_faulty_server, raw, reply, slow, too_many
from emp_trio.testing.proxy import open_proxy

from ..support import HttpProbe, connector_context, open_http

OK = reply(200, json={"ok": True})
NOT_JSON = reply(200, b"{", content_type="application/json")


@pytest.mark.parametrize(
    ("first", "method", "repeated", "maybe_started"),
    [
        *[(reply(status), "POST", True, False) for status in (408, 409, 429, 503)],
        *[(reply(status), "GET", True, False) for status in (408, 409, 429, 500, 502, 503, 504)],
        *[(reply(status), "POST", False, True) for status in (500, 502, 504, 599)],
        *[(reply(status), "POST", False, False) for status in (400, 401, 403, 404, 413, 422)],
        *[(reply(status), "GET", False, False) for status in (400, 401, 403, 404, 413, 422, 501)],
        (raw(b""), "POST", False, True),
        (raw(b""), "PATCH", False, True),
        (raw(b""), "GET", True, False),
        (raw(b""), "PUT", True, False),
        (raw(b""), "DELETE", True, False),
        (cut(OK, 50), "POST", False, True),
        (cut(OK, 50, reset=True), "GET", True, False),
        (NOT_JSON, "POST", False, True),
        (NOT_JSON, "GET", True, False),
    ],
)
async def test_what_is_repeated(first: Answer, method: str, repeated: bool, maybe_started: bool) -> None:
    async with open_faulty_server(first, OK) as faulty, open_http(faulty.url) as probe:
        if repeated:
            answer = await probe.http.request(method, "/")
            assert (answer.json(), answer.tries) == ({"ok": True}, 2)
            assert len(faulty.requests) == 2
        else:
            with pytest.raises(ServiceError) as caught:
                await probe.http.request(method, "/")
            assert caught.value.maybe_started == maybe_started
            assert len(faulty.requests) == 1


async def test_a_call_can_say_that_it_may_be_made_twice_or_not() -> None:
    async with open_faulty_server(reply(500), OK, raw(b""), OK) as faulty, open_http(faulty.url) as probe:
        assert (await probe.http.request("POST", "/cancel", idempotent=True)).tries == 2
        with pytest.raises(ServiceError) as caught:
            await probe.http.request("PUT", "/", idempotent=False)
        assert caught.value.maybe_started


async def test_the_opening_of_a_stream_is_repeated_too() -> None:
    async with (
        open_faulty_server(reply(503), reply(429), reply(200, b"abc")) as faulty,
        open_http(faulty.url) as probe,
        probe.http.stream("POST", "/", json={}) as stream,
    ):
        assert stream.tries == 3
        assert b"".join([chunk async for chunk in stream.chunks()]) == b"abc"


async def test_a_service_that_comes_up_late_is_reached_by_a_post() -> None:
    async with open_faulty_server(OK) as faulty, open_proxy(faulty.port) as proxy:
        proxy.refuse = True
        async with open_http(f"http://127.0.0.1:{proxy.port}", max_retries=50) as probe:

            async def come_up() -> None:
                with trio.fail_after(60):
                    while proxy.accepted < 3:
                        await trio.sleep(0.001)
                proxy.refuse = False

            async with trio.open_nursery() as nursery:
                nursery.start_soon(come_up)
                answer = await probe.http.request("GET", "/")
        assert answer.tries >= 4
        assert len(faulty.requests) == 1


async def test_the_number_of_repeats_is_a_setting_and_a_word_of_the_call() -> None:
    async with open_faulty_server(reply(503)) as faulty, open_http(faulty.url, max_retries=2) as probe:
        for retries, sent in ((None, 3), (0, 1), (5, 6)):
            faulty.requests.clear()
            with pytest.raises(ServiceError) as caught:
                await probe.http.request("POST", "/", retries=retries)
            assert len(faulty.requests) == sent
            assert (f"after {sent} tries" in str(caught.value)) == (sent > 1)
            assert caught.value.reason == "service_unavailable"


async def test_pauses_grow_from_the_delay(autojump_clock: trio.testing.MockClock) -> None:
    async with open_faulty_server(reply(503)) as faulty, open_http(faulty.url, max_retries=6, retry_delay=0.5) as probe:
        began = trio.current_time()
        with pytest.raises(ServiceError):
            await probe.http.request("POST", "/")
        longest = 0.5 + 1 + 2 + 4 + 8 + 8
        assert 0.75 * longest <= trio.current_time() - began <= longest


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "soon"}, None),
    ],
)
async def test_a_stated_wait_is_kept(
    headers: dict[str, str], wait: float | None, autojump_clock: trio.testing.MockClock
) -> None:
    async with (
        open_faulty_server(reply(429, headers=headers), OK) as faulty,
        open_http(faulty.url, retry_delay=8) as probe,
    ):
        began = trio.current_time()
        await probe.http.request("POST", "/")
        took = trio.current_time() - began
        if wait is None:
            assert 6 <= took <= 8
        else:
            assert took == pytest.approx(wait, abs=0.001)


async def test_a_wait_stated_as_a_date_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    at = email.utils.formatdate(time.time() + 30, usegmt=True)
    async with (
        open_faulty_server(reply(503, headers={"retry-after": at}), OK) as faulty,
        open_http(faulty.url) as probe,
    ):
        began = trio.current_time()
        await probe.http.request("POST", "/")
        assert 28 <= trio.current_time() - began <= 31


async def test_a_wait_that_is_too_long_is_handed_to_the_queue(autojump_clock: trio.testing.MockClock) -> None:
    async with open_faulty_server(too_many(retry_after="121")) as faulty, open_http(faulty.url, timeout=600) as probe:
        began = trio.current_time()
        with pytest.raises(ServiceError) as caught:
            await probe.http.request("GET", "/")
        assert trio.current_time() == pytest.approx(began, abs=0.1)
        assert (caught.value.type, caught.value.retry, caught.value.retry_after) == ("rate_limit", True, 121)
        assert caught.value.code == "rate_limit_exceeded"


async def test_a_wait_beyond_the_timeout_or_the_deadline_is_not_begun(autojump_clock: trio.testing.MockClock) -> None:
    async with open_faulty_server(reply(503, headers={"retry-after": "30"})) as faulty, open_http(faulty.url) as probe:
        for timeout, deadline in ((20, 1000), (1000, 20)):
            began = trio.current_time()
            with trio.fail_after(deadline), pytest.raises(ServiceError) as caught:
                await probe.http.request("GET", "/", timeout=timeout)
            assert trio.current_time() == pytest.approx(began, abs=0.1)
            assert caught.value.retry_after == 30


async def test_repeats_share_the_timeout_of_the_operation(autojump_clock: trio.testing.MockClock) -> None:
    async with open_faulty_server(slow(reply(503), 4)) as faulty, open_http(faulty.url, max_retries=100) as probe:
        began = trio.current_time()
        with pytest.raises(ServiceError) as caught:
            await probe.http.request("POST", "/", timeout=10)
        assert trio.current_time() - began == pytest.approx(10)
        assert caught.value.reason == "network_timeout"
        assert len(faulty.requests) == 3


class Picky(HttpProbe):
    """A service with words of its own."""

    def describe_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
        if body == b"policy":
            return Refused("no", status=status)
        if body == b"billing":
            return ServiceError("out of money", status=status, retry=False, code="insufficient_quota")
        return ServiceError("wait", status=status, retry=True, retry_after=7, request_id="own")


async def test_the_connectors_own_description_decides(autojump_clock: trio.testing.MockClock) -> None:
    named = {"x-request-id": "req_9", "retry-after": "1"}
    answers = (reply(400, b"policy", headers=named), reply(429, b"billing", headers=named), reply(503, headers=named))
    async with (
        open_faulty_server(*answers, OK) as faulty,
        open_connector(Picky, Picky.Settings(http=HttpSettings(base_url=faulty.url)), connector_context()) as probe,
    ):
        with pytest.raises(Refused, match=r"^POST http.*/: no \(request req_9\)$") as refused:
            await probe.http.request("POST", "/")
        assert refused.value.request_id == "req_9"
        with pytest.raises(ServiceError, match="out of money") as broke:
            await probe.http.request("POST", "/")
        assert (broke.value.retry, broke.value.retry_after, broke.value.code) == (False, 1, "insufficient_quota")
        began = trio.current_time()
        assert (await probe.http.request("POST", "/")).tries == 2
        assert trio.current_time() - began == pytest.approx(7, abs=0.01)


async def test_a_429_slows_the_whole_connector_but_not_its_polls(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_faulty_server(too_many(retry_after="5"), OK) as faulty,
        open_http(faulty.url, max_retries=1) as probe,
    ):
        times: dict[str, float] = {}
        began = trio.current_time()

        async def call(name: str, method: str) -> None:
            await probe.http.request(method, "/")
            times[name] = trio.current_time() - began

        async def limited() -> None:
            async with probe.limiter.limit():
                times["limit"] = trio.current_time() - began

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, "first", "POST")
            await faulty.received(1)
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.start_soon(call, "second", "POST")
            nursery.start_soon(call, "poll", "GET")
            nursery.start_soon(limited)
        assert times["poll"] < 1
        for name in ("first", "second", "limit"):
            assert times[name] == pytest.approx(5, abs=0.1)


async def test_a_429_without_a_wait_slows_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_faulty_server(reply(429), OK) as faulty,
        open_http(faulty.url, retry_delay=10) as probe,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(probe.http.request, "POST", "/")
        await faulty.received(1)
        await trio.testing.wait_all_tasks_blocked(0.01)
        began = trio.current_time()
        await probe.http.request("POST", "/")
        assert trio.current_time() == pytest.approx(began, abs=0.1)

"""Files from addresses that a job names, over real sockets; names are looked up in a table of the test's own."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import InputUnavailable, InvalidJob
from emp_trio.protocols.auth import Auth, Bearer
from emp_trio.protocols.fetch import Fetches, FetchSettings
from emp_trio.protocols.http import Http, HttpSettings
from emp_trio.secrets import Secret
from emp_trio.services.connector import Connector, open_connector
from emp_trio.testing.faulty_server import Answer, cut, dribble, hang, open_faulty_server, redirect, reply, slow
from tests.names import Names
from tests.protocols.support import connector_context, self_signed

IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(5000)


class FetchProbe(Http, Fetches, Connector):
    """A connector with an account of its own, of which nothing may leak."""

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        http: HttpSettings
        fetch: FetchSettings

    def auth(self) -> Auth:
        return Bearer(Secret("the-connectors-own-key"))


@asynccontextmanager
async def open_fetch(*, private: bool = True, **settings: Any) -> AsyncIterator[FetchProbe]:
    """A connector that may fetch from this machine, where the servers of the tests are."""
    fetch = FetchSettings(input_allow_private=private, **{f"input_{name}": value for name, value in settings.items()})
    made = FetchProbe.Settings(http=HttpSettings(base_url="http://127.0.0.1:9"), fetch=fetch)
    async with open_connector(FetchProbe, made, connector_context()) as probe:
        yield probe


def kind(error: InputUnavailable) -> tuple[str, str, bool]:
    """Type, reason and whether another attempt makes sense."""
    return error.type, error.reason, error.retry


async def test_a_file_comes_as_it_is_and_nothing_of_the_connectors_goes_out() -> None:
    answer = reply(200, IMAGE, content_type="image/png", headers={"set-cookie": "a=b"})
    async with open_faulty_server(answer) as faulty, open_fetch() as probe:
        for _ in range(2):
            found = await probe.fetcher.fetch(f"{faulty.url}/a/cat%20one.png?sig=x")
            assert (found.data, found.name) == (IMAGE, "cat one.png")
        await faulty.emptied()
    for request in faulty.requests:
        assert (request.method, request.target) == ("GET", "/a/cat%20one.png?sig=x")
        assert request.headers == {
            "host": f"127.0.0.1:{faulty.port}",
            "user-agent": "emp-trio-test/1",
            "accept": "*/*",
            "accept-encoding": "gzip",
        }


HOSTILE = """
    http://127.0.0.1/ http://127.0.0.1:6379/ http://127.1/ http://127.0.1/ http://2130706433/ http://0x7f000001/
    http://0x7f.0.0.1/ http://0x7F.1/ http://017700000001/ http://0177.0.0.01/ http://127.000.000.001/ http://0/
    http://0.0.0.0/ http://localhost/ http://localhost./ http://LOCALHOST/ http://127。0。0。1/ http://１２７.0.0.1/
    http://①②⑦.0.0.1/ http://%31%32%37.0.0.1/ http://[::1]/ http://[0:0:0:0:0:0:0:1]/ http://[::]/
    http://[::ffff:127.0.0.1]/ http://[::ffff:7f00:1]/ http://[::127.0.0.1]/ http://[64:ff9b::7f00:1]/
    http://[2002:7f00:1::]/ http://[fe80::1]/ http://[fe80::1%25lo]/ http://[fd00:ec2::254]/ http://[fec0::1]/
    http://10.0.0.1/ http://172.16.0.1/ http://192.168.1.1/ http://192.168.257/ http://100.64.0.1/
    http://169.254.169.254/latest/meta-data/ http://2852039166/ http://0xA9FEA9FE/ http://[::ffff:a9fe:a9fe]/
    http://168.63.129.16/ http://100.100.100.200/ http://224.0.0.1/ http://255.255.255.255/ http://192.0.2.1/
    http://198.18.0.1/ http://240.0.0.1/ http://inside.example/ http://both.example/ http://both6.example/
    http://1.1.1.1@127.0.0.1/ http://user:pass@1.1.1.1/ http://1.1.1.1\\@127.0.0.1/ http://127.0.0.1\\.example/
    http://127.0.0.1#@1.1.1.1/ http://127.0.0.1?@1.1.1.1/ http://1.1.1.1:80:80/ http://1.1.1.1:0/
    http://1.1.1.1:65536/ http://[::1/ http://::1/ http:///etc/passwd
    http:/127.0.0.1/ http:127.0.0.1 https:///x http:// http://. http://..
    http://a..b/ http://xn--/ http://*.example/ file:///etc/passwd ftp://1.1.1.1/ gopher://127.0.0.1:6379/_INFO
    unix:/run/x data:text/plain,x javascript:alert(1) //127.0.0.1/ 127.0.0.1 /etc/passwd nowhere.example
    http://nowhere.example/
""".split()
UNREADABLE = ["", "\x00", "http://1.1.1.1 @127.0.0.1/", "http://127.0.0.1\t/", "http://1.1.1.1/\r\nhost: 127.0.0.1"]


@pytest.mark.parametrize("url", HOSTILE + UNREADABLE)
async def test_a_hostile_url_goes_nowhere(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Names(
        inside_example=[["10.1.2.3"]],
        both_example=[["1.1.1.1", "127.0.0.1"]],
        both6_example=[["2606:4700::1111", "::ffff:127.0.0.1"]],
        **{name: [["127.0.0.1"]] for name in ("localhost", "LOCALHOST", "localhost_")},
    )

    async def connect(*args: Any, **options: Any) -> None:
        raise AssertionError(f"a connection to {args}")

    monkeypatch.setattr(trio, "open_tcp_stream", connect)
    async with open_fetch(private=False) as probe:
        with pytest.raises(InvalidJob):
            await probe.fetcher.fetch(url)


# Without digits, so that no text becomes an address that exists.
@given(st.text(st.characters(exclude_categories=["Cs", "Nd", "Nl", "No"]), max_size=30))
async def test_no_url_is_fatal(text: str) -> None:
    Names()
    async with open_fetch(private=False) as probe:
        for url in (text, f"http://{text}", f"https://x.example/{text}", f"http://[{text}]/", f"http://x:{text}/"):
            with pytest.raises(InvalidJob):
                await probe.fetcher.fetch(url)


async def test_the_name_is_looked_up_once_and_the_connection_goes_where_it_said() -> None:
    """A name that says something else the next time (DNS rebinding) gains nothing."""
    names = Names(images_example=[["127.0.0.1"], ["169.254.169.254"]])
    async with open_faulty_server(reply(200, IMAGE)) as faulty, open_fetch() as probe:
        await probe.fetcher.fetch(f"http://images.example:{faulty.port}/x")
        assert names.asked == ["images.example"]
        assert faulty.requests[0].headers["host"] == f"images.example:{faulty.port}"
        with pytest.raises(InvalidJob, match="leads to an address"):
            await probe.fetcher.fetch(f"http://images.example:{faulty.port}/x")
        assert len(faulty.requests) == 1


async def test_the_next_address_is_tried_where_one_is_dead() -> None:
    Names(images_example=[["127.0.0.2", "127.0.0.1"]])  # nothing listens on the first
    async with open_faulty_server(reply(200, IMAGE)) as faulty, open_fetch() as probe:
        assert (await probe.fetcher.fetch(f"http://images.example:{faulty.port}/x")).data == IMAGE


async def test_a_certificate_must_be_for_the_name_and_not_for_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, authority = self_signed(tmp_path)
    Names(images_example=[["127.0.0.1"]])
    async with open_faulty_server(reply(200, IMAGE), tls=tls) as faulty, open_fetch() as probe:
        with pytest.raises(InputUnavailable) as caught:
            await probe.fetcher.fetch(f"{faulty.url}/x")
        assert kind(caught.value) == ("network_error", "ssl_certificate", True)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    async with open_faulty_server(reply(200, IMAGE), tls=tls) as faulty, open_fetch() as probe:
        assert (await probe.fetcher.fetch(f"{faulty.url}/x")).data == IMAGE
        with pytest.raises(InputUnavailable, match="Hostname mismatch") as caught:
            await probe.fetcher.fetch(f"https://images.example:{faulty.port}/x")
        assert kind(caught.value) == ("network_error", "ssl_certificate", True)
        assert len(faulty.requests) == 1


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with open_faulty_server(reply(200, IMAGE)) as faulty, open_fetch() as probe:
        assert (await probe.fetcher.fetch(f"{faulty.url}/x")).data == IMAGE


async def test_redirects_are_followed_to_where_they_lead() -> None:
    async with open_faulty_server(reply(200, IMAGE)) as second:
        answers = redirect("/b"), redirect("c.png", 307), redirect(f"{second.url}/d/e.png?x=y")
        async with open_faulty_server(*answers) as first, open_fetch() as probe:
            assert (await probe.fetcher.fetch(f"{first.url}/a")).name == "e.png"
            assert [request.target for request in first.requests] == ["/a", "/b", "/c.png"]
            assert second.requests[0].headers["host"] == f"127.0.0.1:{second.port}"


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "//169.254.169.254/",
        "http://0xa9fea9fe/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://inside.example/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://user:pass@127.0.0.1/",
        "http://[::1",
        "http://x:y/",
    ],
)
async def test_every_redirect_is_checked(location: str) -> None:
    Names(inside_example=[["100.100.100.200"]])
    async with open_faulty_server(redirect(location), reply(200, IMAGE)) as faulty, open_fetch() as probe:
        with pytest.raises(InvalidJob):
            await probe.fetcher.fetch(f"{faulty.url}/x?sig=hidden")
        assert len(faulty.requests) == 1


async def test_a_redirect_from_tls_to_plain_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls, authority = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    async with (
        open_faulty_server(reply(200, IMAGE)) as plain,
        open_faulty_server(redirect(f"{plain.url}/x"), tls=tls) as secure,
    ):
        async with open_fetch() as probe:
            with pytest.raises(InvalidJob, match="not https"):
                await probe.fetcher.fetch(f"{secure.url}/x")
        assert plain.requests == []


async def test_a_redirect_loop_ends() -> None:
    async with open_faulty_server(redirect("/x?sig=hidden")) as faulty, open_fetch() as probe:
        with pytest.raises(InvalidJob, match="more than 3 times") as caught:
            await probe.fetcher.fetch(f"{faulty.url}/x")
    assert len(faulty.requests) == 4
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("told", [None, 0, 5009])
async def test_a_file_above_the_limit_is_refused_while_it_comes(told: int | None) -> None:
    """Whatever its server says of the length: that of the answer without one is the number of bytes that come."""
    if told is None:
        answer = reply(200, IMAGE + b"x" * 10**7, headers={"content-length": str(10**9)})
    elif told:
        answer = reply(200, IMAGE + b"x", length=told)
    else:
        answer = reply(200, b"4e21\r\n" + b"x" * 20001 + b"\r\n0\r\n\r\n", headers={"transfer-encoding": "chunked"})
        answer = _without_length(answer)
    async with open_faulty_server(answer) as faulty, open_fetch(max_bytes=5008) as probe:
        with trio.fail_after(60), pytest.raises(InvalidJob, match="larger than the 5008 bytes"):
            await probe.fetcher.fetch(f"{faulty.url}/x")
        with trio.fail_after(60):
            await faulty.emptied()


async def test_a_file_of_just_the_limit_is_taken() -> None:
    async with open_faulty_server(reply(200, IMAGE)) as faulty, open_fetch(max_bytes=len(IMAGE)) as probe:
        assert (await probe.fetcher.fetch(f"{faulty.url}/x")).data == IMAGE


def _without_length(answer: Answer) -> Answer:
    async def changed(exchange: Any) -> None:
        sending = exchange.send

        async def send(data: bytes) -> None:
            await sending(data.replace(b"content-length: ", b"x-length: "))

        exchange.send = send
        await answer(exchange)

    return changed


@pytest.mark.parametrize(
    "answer",
    [hang(), dribble(reply(200, IMAGE), piece=10, pause=0.05), slow(redirect("/again"), 0.05)],
    ids=["silent", "drop by drop", "redirected slowly"],
)
async def test_a_slow_file_is_given_up(answer: Answer) -> None:
    async with open_faulty_server(answer) as faulty, open_fetch(timeout=0.3, max_redirects=1000) as probe:
        with trio.fail_after(60), pytest.raises(InputUnavailable, match=r"within 0\.3 s") as caught:
            await probe.fetcher.fetch(f"{faulty.url}/x?sig=hidden")
        with trio.fail_after(60):
            await faulty.emptied()
    assert kind(caught.value) == ("timeout", "network_timeout", True)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("status", [201, 204, 400, 401, 403, 404, 410, 451])
async def test_a_url_that_leads_to_nothing_is_the_submitters_mistake(status: int) -> None:
    async with open_faulty_server(reply(status, b"secret words")) as faulty, open_fetch() as probe:
        with pytest.raises(InvalidJob, match=str(status)) as caught:
            await probe.fetcher.fetch(f"{faulty.url}/x?sig=hidden")
    assert "hidden" not in str(caught.value)
    assert "secret words" not in str(caught.value)


async def test_an_empty_file_is_refused() -> None:
    async with open_faulty_server(reply(200, b"")) as faulty, open_fetch() as probe:
        with pytest.raises(InvalidJob, match="empty"):
            await probe.fetcher.fetch(f"{faulty.url}/x")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_a_server_that_fails_is_worth_another_attempt(status: int) -> None:
    async with open_faulty_server(reply(status, headers={"retry-after": "7"})) as faulty, open_fetch() as probe:
        with pytest.raises(InputUnavailable, match=str(status)) as caught:
            await probe.fetcher.fetch(f"{faulty.url}/x?sig=hidden")
    assert kind(caught.value) == ("service_error", "service_unavailable", True)
    assert caught.value.retry_after == 7.0
    assert "hidden" not in str(caught.value)


async def test_a_connection_that_is_lost_is_worth_another_attempt() -> None:
    async with open_faulty_server(cut(reply(200, IMAGE), 1000)) as faulty, open_fetch() as probe:
        with pytest.raises(InputUnavailable, match="/x: ") as caught:
            await probe.fetcher.fetch(f"{faulty.url}/x?sig=hidden")
        port = faulty.port
    assert kind(caught.value) == ("network_error", "connection_failed", True)
    async with open_fetch() as probe:
        with pytest.raises(InputUnavailable) as caught:
            await probe.fetcher.fetch(f"http://127.0.0.1:{port}/x?sig=hidden")
    assert kind(caught.value) == ("network_error", "connection_failed", True)
    assert "hidden" not in str(caught.value)


async def test_a_look_up_that_fails_for_now_is_worth_another_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names()

    async def later(*args: Any) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(names, "getaddrinfo", later)
    async with open_fetch() as probe:
        with pytest.raises(InputUnavailable) as caught:
            await probe.fetcher.fetch("http://images.example/x?sig=hidden")
    assert kind(caught.value) == ("network_error", "dns_resolution", True)
    assert "hidden" not in str(caught.value)


async def test_a_cancelled_fetch_closes_its_connection() -> None:
    async with open_faulty_server(hang()) as faulty, open_fetch() as probe:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(probe.fetcher.fetch, f"{faulty.url}/x")
            await faulty.received(1)
            nursery.cancel_scope.cancel()
        with trio.fail_after(60):
            await faulty.emptied()


async def test_a_refused_redirect_is_not_named() -> None:
    target = "http://169.254.169.254:8123/latest/secret-path"
    async with open_faulty_server(redirect(target)) as faulty, open_fetch() as probe:
        with pytest.raises(InvalidJob, match="is redirected to a place that leads to an address") as caught:
            await probe.fetcher.fetch(f"{faulty.url}/x")
    assert not any(part in caught.value.message for part in ("169.254", "8123", "latest"))

"""Calls that payloads describe: the fleet's form, where it is allowed, and never to another host."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import InvalidJob, ServiceError
from emp_trio.protocols.urls import join_url
from emp_trio.services.rest.calls import RestCall, rest_call, with_id
from emp_trio.services.rest.settings import CallSettings
from emp_trio.testing.attempt import run_job
from emp_trio.testing.faulty_server import open_faulty_server, redirect, reply
from tests.services.rest.support import KEY, open_rest
from tests.services.support import job

BASE = "https://api.example/v1"
OPEN = CallSettings(payload_calls=True, path="/run", headers={"x-v": "1"})


def call(payload: dict[str, Any], settings: CallSettings = OPEN) -> RestCall:
    return rest_call(job(payload), settings, key_header="X-Key")


def test_a_payload_describes_its_call() -> None:
    made = call({"endpoint": "/a?b=c", "method": "put", "data": {"n": 1}, "body": 2, "headers": {"X-Mine": "yes"}})
    assert made == RestCall(method="PUT", path="/a?b=c", headers={"x-v": "1", "X-Mine": "yes"}, body={"n": 1})
    assert call({"body": [1]}) == RestCall(method="POST", path="/run", headers={"x-v": "1"}, body=[1])
    assert call({"method": "GET"}).options() == {"headers": {"x-v": "1"}, "params": {}}


def test_without_leave_it_is_a_payload_like_any_other() -> None:
    payload = {"endpoint": "/admin", "method": "PUT", "headers": {"x": "y"}}
    assert call(payload, CallSettings(path="/run")) == RestCall(method="POST", path="/run", headers={}, body=payload)


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://evil/",
        "//evil/",
        "evil",
        "@evil/",
        "/../admin",
        "/a/..",
        "/%2e%2e/admin",
        "/a/%2E./b",
        "/a%2f..%2fb",
        "/./a",
        "/\\evil",
        "/a b",
        "/a\r\nx: y",
        "/ä",
        "/a#b",
        "/a{id}",
        "/..;/admin",
        "/a/..;x=1/b",
        "/a;b=c",
        "/%252e%252e/admin",
        "/%25252e%25252e/admin",
        "/..%5cadmin",
        "/..%255cadmin",
        "/a%5cb",
        "/%2fevil/",
        "/a/%2fb",
        "/a//b",
        "/a/.",
        "/a%00",
        "/a%0d%0ax:%20y",
        "/%c0%ae%c0%ae/admin",
        "/%ef%bc%8e%ef%bc%8e/admin",
        "/..%20/admin",
        5,
        ["/a"],
    ],
)
def test_no_endpoint_leads_elsewhere(endpoint: Any) -> None:
    with pytest.raises(InvalidJob, match=r"payload\.endpoint"):
        call({"endpoint": endpoint})


@given(st.text(st.sampled_from("/.%2eEfF\\@:?#a ht\r\n"), min_size=1))
def test_whatever_an_endpoint_is_the_base_stays(endpoint: str) -> None:
    try:
        made = call({"endpoint": endpoint})
    except InvalidJob:
        return
    parts = urlsplit(join_url(BASE, made.path))
    assert (parts.scheme, parts.netloc) == ("https", "api.example")
    assert parts.path.startswith("/v1/")


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "x"},
        {"x-key": "x"},
        {"X-KEY": "x"},
        {"Host": "evil"},
        {"cookie": "x"},
        {"Transfer-Encoding": "chunked"},
        {"a": "b\r\nc: d"},
        {"X-HTTP-Method-Override": "DELETE"},
        {"X-HTTP-Verb-Override": "DELETE"},
        {"X-Verb": "DELETE"},
        {"Request-Uri": "/admin"},
        {"Base_Url": "http://h"},
        {"Destination": "/admin"},
        {"X-Remote-User": "root"},
        {"X-MS-Client-Principal": "root"},
        {"SSL-Client-Cert": "x"},
        {"Content-Encoding": "gzip"},
        {"X-Middleware-Subrequest": "x"},
        {"X-Api-Key": "x"},
        {"api_key": "x"},
        {"X-Access-Token": "x"},
        {"x_http_method_override": "DELETE"},
        {"X-Method-Override": "DELETE"},
        {"X-HTTP-Method": "DELETE"},
        {"X-Original-URL": "/admin"},
        {"X-Rewrite-URL": "/admin"},
        {"X_Original_Url": "/admin"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"x_forwarded_host": "evil"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Real-IP": "127.0.0.1"},
        {"Proxy-Connection": "close"},
        {"Proxy-Authorization": "x"},
        {"Connection": "x-key"},
        {"Content-Length": "0"},
        {"TE": "trailers"},
        {"Upgrade": "websocket"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"X_Key": "x"},
        {"X-V": "2"},
        {"a b": "c"},
        {"": "c"},
        {"a": 1},
        ["a"],
        "a: b",
    ],
)
def test_headers_that_are_not_for_a_job_to_set(headers: Any) -> None:
    with pytest.raises(InvalidJob, match=r"payload\.headers"):
        call({"headers": headers})


def test_headers_that_are() -> None:
    headers = {"Accept-Language": "de", "X-Mine": "yes", "Content-Type": "application/json; charset=utf-8"}
    assert call({"headers": headers}).headers == {"x-v": "1", **headers}


@pytest.mark.parametrize(
    "payload",
    [
        {"endpoint": "/a?_method=DELETE"},
        {"endpoint": "/a?b=c&_METHOD=delete"},
        {"endpoint": "/a?b=c;_method=delete"},
        {"endpoint": "/a?%5fmethod=delete"},
        {"endpoint": "/a?%255fmethod=delete"},
        {"endpoint": "/a?X-HTTP-Method-Override=DELETE"},
        {"endpoint": "/a?_verb=DELETE"},
        {"body": [{"_method": "DELETE"}]},
        {"endpoint": "/a?_method"},
        {"data": {"_method": "DELETE"}},
        {"data": {"_method[]": "DELETE"}},
        {"method": "GET", "data": {"_method": "DELETE"}},
        {"method": "GET", "data": {"x-http-method": "DELETE"}},
    ],
)
def test_the_method_stands_in_one_place(payload: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob, match=r"payload\.method"):
        call(payload)


def test_a_member_called_method_is_nothing_special() -> None:
    assert call({"endpoint": "/a?method=list", "data": {"method": "euler"}}).path == "/a?method=list"


async def test_an_answer_to_a_described_call_is_not_followed_to_another_host(
    connector_context: ConnectorContext,
) -> None:
    async with (
        open_faulty_server(reply(200, json={"secret": 1})) as inside,
        open_faulty_server(redirect(f"{inside.url}/x")) as service,
    ):
        for connector_name, settings in (("RestSyncConnector", {}), ("RestAsyncConnector", {})):
            given = {"payload_calls": True, **settings}
            async with open_rest(connector_name, service.url, connector_context, given) as connector:
                with pytest.raises(ServiceError, match="another host") as caught:
                    await run_job(connector, job({"endpoint": f"/go?to={inside.url}", "method": "GET"}))
                assert str(inside.port) not in caught.value.message.rpartition("answered")[2]
        assert inside.requests == []


@pytest.mark.parametrize("method", ["DELETE", "CONNECT", "POST /x", 5])
def test_methods_are_those_of_the_settings(method: Any) -> None:
    with pytest.raises(InvalidJob, match=r"payload\.method"):
        call({"method": method})


@pytest.mark.parametrize("body", [[1], "text", {"a": {"b": 1}}, {"a": [[1]]}])
def test_what_a_query_cannot_hold(body: Any) -> None:
    with pytest.raises(InvalidJob):
        call({"method": "GET", "data": body})


@given(st.text(min_size=1))
def test_an_id_stays_in_its_segment(work: str) -> None:
    try:
        work.encode()
    except UnicodeEncodeError:
        return
    path = with_id("/w/{id}/state", work)
    assert path.count("/") == 3
    assert "?" not in path
    assert "#" not in path
    assert with_id("/w/", work) == with_id("/w/{id}", work)


async def test_a_described_call_is_made_with_the_workers_credentials(connector_context: ConnectorContext) -> None:
    settings = {"payload_calls": True, "api_key": KEY}
    async with (
        open_faulty_server(reply(200, json={"n": 1})) as service,
        open_rest("RestSyncConnector", service.url, connector_context, settings) as connector,
    ):
        await run_job(connector, job({"endpoint": "/do", "data": {"a": 1}, "ctx": {"storageKey": "c2VjcmV0"}}))
        with pytest.raises(InvalidJob):
            await run_job(connector, job({"endpoint": "http://elsewhere/"}))
    (request,) = service.requests
    assert (request.method, request.target, request.body) == ("POST", "/do", b'{"a":1}')
    assert request.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("private", [False, True])
async def test_a_file_of_the_answer_that_is_elsewhere_is_fetched_past_the_guard(
    connector_context: ConnectorContext, private: bool
) -> None:
    async with (
        open_faulty_server(reply(200, b"a file")) as elsewhere,
        open_faulty_server(reply(200, json={"file": "/f"}), redirect(f"{elsewhere.url}/x")) as service,
    ):
        settings = {"files_at": "/file", "api_key": KEY, "input_allow_private": private}
        async with open_rest("RestSyncConnector", service.url, connector_context, settings) as connector:
            if private:
                assert (await run_job(connector, job({}))).success
                (request,) = elsewhere.requests
                assert "authorization" not in request.headers
            else:
                with pytest.raises(ServiceError, match="can't be had") as caught:
                    await run_job(connector, job({}))
                assert elsewhere.requests == []
                assert str(elsewhere.port) not in caught.value.message

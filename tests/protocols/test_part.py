"""Mixins attach objects to a connector: in whatever order they are listed, and with an error where something lacks."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import trio
import trio.testing

from emp_trio.protocols.http import Http, HttpClient, HttpSettings
from emp_trio.protocols.limits import Limits, LimitsSettings, RateLimiter
from emp_trio.protocols.polling import Poller, Polling, PollingSettings
from emp_trio.protocols.streaming import EventStream, Streaming
from emp_trio.services.connector import Connector, open_connector
from emp_trio.testing.faulty_server import open_faulty_server, reply

from .support import connector_context


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The names of the fields do not matter, their types do."""

    service: HttpSettings = HttpSettings(base_url="http://127.0.0.1:9", max_retries=0)
    pace: LimitsSettings = LimitsSettings()
    patience: PollingSettings = PollingSettings(interval=7.0)


class OneWay(Http, Streaming, Limits, Polling, Connector[Settings]):
    Settings = Settings


class OtherWay(Polling, Limits, Streaming, Http, Connector[Settings]):
    Settings = Settings


@pytest.mark.parametrize("connector", [OneWay, OtherWay])
async def test_each_mixin_attaches_its_object_whatever_the_order_of_the_bases(
    connector: type[OneWay] | type[OtherWay],
) -> None:
    async with open_connector(connector, Settings(), connector_context()) as made:
        assert isinstance(made.http, HttpClient)
        assert isinstance(made.streaming, EventStream)
        assert isinstance(made.limiter, RateLimiter)
        assert isinstance(made.poller, Poller)
        assert made.http.settings == made.settings.service
        assert made.poller.settings.interval == 7.0


@pytest.mark.parametrize("connector", [OneWay, OtherWay])
async def test_calls_heed_the_pauses_of_the_limiter_whatever_the_order_of_the_bases(
    connector: type[OneWay] | type[OtherWay], autojump_clock: trio.testing.MockClock
) -> None:
    async with open_faulty_server(reply(200, json={})) as faulty:
        settings = Settings(service=HttpSettings(base_url=faulty.url))
        async with open_connector(connector, settings, connector_context()) as made:
            made.limiter.slow_down(30)
            began = trio.current_time()
            await made.http.request("POST", "/")
            assert 30 <= trio.current_time() - began < 31


class WithoutSettings(msgspec.Struct, frozen=True, kw_only=True):
    other: str = ""


class TwoOfAKind(msgspec.Struct, frozen=True, kw_only=True):
    polling: PollingSettings = PollingSettings()
    again: PollingSettings = PollingSettings()


def without_settings() -> type[Connector]:
    class Lacking(Polling, Connector[WithoutSettings]):
        Settings = WithoutSettings

    return Lacking


def with_two_of_a_kind() -> type[Connector]:
    class Ambiguous(Polling, Connector[TwoOfAKind]):
        Settings = TwoOfAKind

    return Ambiguous


def without_http() -> type[Connector]:
    class Alone(Streaming, Connector[WithoutSettings]):
        Settings = WithoutSettings

    return Alone


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (without_settings, "Lacking lists Polling, so its Settings must have one field of the type PollingSettings"),
        (with_two_of_a_kind, "belongs both to 'polling' and to 'again'"),
        (without_http, "Alone lists Streaming, which needs Http beside it"),
    ],
)
def test_what_a_mixin_lacks_is_said_when_the_class_is_made(make: Callable[[], type[Connector]], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        make()

"""The conformance suite: a pytest class with the tests that every connector passes."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
import pytest
import trio

from emp_trio.attempt import StageLimits
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ConfigError, DeadlineExceeded, EmpTrioError
from emp_trio.jobs import Job, JobResult
from emp_trio.protocols.saves_assets import SavesAssets
from emp_trio.services.connector import Connector
from emp_trio.testing.attempt import FakeAttempt
from emp_trio.testing.conformance.checks import check_progress, secrets_in
from emp_trio.testing.conformance.mutations import cut_places, other_labels, said_in, sampled, saying, wrong_bodies
from emp_trio.testing.conformance.needs import NEEDS, needs
from emp_trio.testing.conformance.relay import (
    Answered,
    Relay,
    Spoil,
    bad_answers,
    bad_refusals,
    from_kind,
    kind_of,
    open_relay,
    untouched,
)
from emp_trio.testing.conformance.scene import (
    CTX_SECRET,
    Running,
    StuckAssets,
    at,
    no_service,
    open_running,
    open_toolbox,
    short_attempt,
    until,
)
from emp_trio.testing.conformance.steps import run_steps
from emp_trio.testing.faulty_server import open_faulty_server, reply
from emp_trio.testing.proxy import FaultProxy, open_proxy

T = TypeVar("T")

HEAVY = os.environ.get("EMP_TRIO_HEAVY") == "1"

_PARTS: Final = 8 if HEAVY else 1  # of the tests that try many things: several processes share them
_SPARE: Final = 8 if HEAVY else 0  # steps that a run may have more than another
_in_parts = pytest.mark.parametrize("part", range(_PARTS))

_numbers = itertools.count(1)


class ConnectorConformance:
    """Subclass it as ``TestMine``, say how your service is reached, and run pytest (with pytest-trio).

    Class attributes to set:
        connector: the connector.
        payload: of a job that it does in well under a second.
        works: how much one job begins in the service.
        adopts: whether a job with this payload remembers its work for the next attempt, where the connector can.
        answer_timeout: seconds for :meth:`settings` to wait for an answer; longer where a test is sure to get one.
        limit: seconds within which any attempt, health check or closing must end.
        cuts, cancels, wrongs: so many cut places, checkpoints and wrong values are tried at most; with EMP_TRIO_HEAVY=1
            all of them are.

    Methods to write: :meth:`open_service`, :meth:`settings`, :meth:`long_job`, :meth:`running`, :meth:`begun`,
    :meth:`check`; those that a connector without a service has no use for have defaults.
    """

    pytestmark = pytest.mark.trio

    connector: ClassVar[type[Connector]]
    payload: ClassVar[dict[str, Any]]
    works: ClassVar[int] = 1
    adopts: ClassVar[bool] = True
    answer_timeout: float = 1.0
    limit: ClassVar[float] = 10.0
    cuts: ClassVar[int] = 30
    cancels: ClassVar[int] = 30
    wrongs: ClassVar[int] = 30

    # --- to be written by the connector's author ---

    def open_service(self) -> AbstractAsyncContextManager[Any]:
        """A fake of the service, served for the length of a block; ``base_url`` says where. None without a service."""
        return no_service()

    def settings(self, service: Any, url: str) -> Any:
        """The connector's settings, with short pauses, for the service at ``url``: that is where it is to be reached,
        not at ``service.base_url``, which is hidden behind a proxy."""
        return self.connector.Settings()

    def long_job(self, service: Any) -> Job:
        """A job that takes an hour; ``service`` may be told to be slow from now on."""
        raise NotImplementedError

    def begun(self, service: Any) -> int:
        """Works that the service has begun so far, and so would have been paid."""
        return 0

    def running(self, service: Any) -> int:
        """Works that run in the service now."""
        return 0

    def check(self, result: JobResult) -> None:
        """Raise AssertionError where ``result`` is not what :attr:`payload` asks for."""
        raise NotImplementedError

    def odd(self, answer: Any) -> Iterable[Any]:
        """Other forms of a JSON answer, given decoded, that hold the same result: as other versions of the service, or
        gateways before it, say it, or with something else wrong beside the result. A stream is the list of what it
        says, also where one is returned; what is neither is given as None."""
        return ()

    # --- what the tests use ---

    @pytest.fixture(autouse=True)
    def _applicable(self, request: pytest.FixtureRequest) -> None:
        what = getattr(request.function, "needs", None)
        served = type(self).open_service is not ConnectorConformance.open_service
        has = {
            None: True,
            "service": served,
            "cancellation": served and self.connector.service_features.cancellation,
            "job_status": served and self.connector.service_features.job_status and self.adopts,
            "assets": issubclass(self.connector, SavesAssets),
        }
        if not has[what]:
            pytest.skip(NEEDS[str(what)])

    def job(self, **fields: Any) -> Job:
        """A new job with :attr:`payload`, to which a submitter has added storage credentials, as some do."""
        ctx = {"storage": {"accountKey": CTX_SECRET}}
        payload = {"ctx": ctx, **self.payload, **fields.pop("payload", {})}
        given = {"id": f"conformance-{next(_numbers)}", "type": "conformance"} | fields
        return Job(payload=payload, **given)

    @asynccontextmanager
    async def _opened(
        self, folder: Path, service: Any, url: str, *, context: ConnectorContext | None = None, silent: bool = True
    ) -> AsyncIterator[Running]:
        self.answer_timeout = type(self).answer_timeout if silent else self.limit
        async with open_toolbox(folder / "assets") as usual:
            opened = open_running(
                self.connector,
                self.settings(service, url),
                context or usual,
                begun=functools.partial(self.begun, service),
                works=self.works,
                limit=self.limit,
            )
            async with opened as running:
                yield running

    @asynccontextmanager
    async def _behind_proxy(self) -> AsyncIterator[tuple[Any, FaultProxy, str]]:
        """The service, a proxy before it, and the URL to use."""
        async with self.open_service() as service:
            url = self._url(service)
            async with open_proxy(urlsplit(url).port or 80) as proxy:
                yield service, proxy, at(url, proxy.port)

    @asynccontextmanager
    async def _behind_relay(self) -> AsyncIterator[tuple[Any, Relay, str]]:
        """The service, a relay before it, and the URL to use."""
        async with self.open_service() as service:
            url = self._url(service)
            async with open_relay("127.0.0.1", urlsplit(url).port or 80) as relay:
                yield service, relay, at(url, relay.port)

    def _url(self, service: Any) -> str:
        return "" if service is None else str(getattr(service, "base_url", "") or service.url)

    def _right(self, outcome: JobResult | EmpTrioError | None) -> None:
        assert isinstance(outcome, JobResult), f"the job failed: {outcome!r}"
        self.check(outcome)

    def _right_or_typed(self, outcome: JobResult | EmpTrioError) -> None:
        """Either the very result, or an error that says what is wrong; never another result."""
        if isinstance(outcome, JobResult):
            self.check(outcome)

    def _few(self, items: list[T], limit: int, part: int) -> list[T]:
        return items[part::_PARTS] if HEAVY else sampled(items, limit)

    # --- success ---

    async def test_a_job_succeeds(self, tmp_path: Path) -> None:
        """The result has the fleet's shape, progress rises, and a second job on the same connector does as well."""
        async with self.open_service() as service:
            url = self._url(service)
            async with self._opened(tmp_path, service, url, silent=False) as running:
                for attempt in (1, 2):
                    context = FakeAttempt()
                    self._right(await running.attempt(self.job(attempt=attempt), context))
                    assert context.reports, "no progress was reported"
                    check_progress(context.reports)

    @needs("service")
    async def test_a_slow_service_is_waited_for(self, tmp_path: Path) -> None:
        """Answers that come late and in small pieces."""
        async with self._behind_proxy() as (service, proxy, url):
            proxy.latency, proxy.bandwidth = 0.02, 200_000
            async with self._opened(tmp_path, service, url, silent=False) as running:
                self._right(await running.attempt(self.job()))

    @needs("service")
    async def test_the_service_does_not_see_the_credentials_of_the_storage(self, tmp_path: Path) -> None:
        """``payload.ctx`` is the worker's business."""
        async with self._behind_relay() as (service, relay, url):
            async with self._opened(tmp_path, service, url) as running:
                await running.attempt(self.job())
            seen = b"".join(exchange.request.head + exchange.request.body for exchange in relay.exchanges)
            assert CTX_SECRET.encode() not in seen, "the service was sent the credentials of the storage"

    # --- faults of the line and of the service ---

    @_in_parts
    @needs("service")
    async def test_an_exchange_cut_anywhere_is_a_typed_error_or_the_right_result(
        self, tmp_path: Path, part: int
    ) -> None:
        """Closed or reset after any byte: never a wrong result, never a hang, never a second work."""
        async with self._behind_proxy() as (service, proxy, url):
            proxy.transcript = bytearray()
            async with self._opened(tmp_path, service, url) as running:
                self._right(await running.attempt(self.job()))
            whole, proxy.transcript = bytes(proxy.transcript), None
            places = cut_places(whole, None if HEAVY else self.cuts)  # which differ a little from run to run
            for number, place in enumerate(place for place in places if place % _PARTS == part):
                proxy.cut_at, proxy.cut_with_reset = proxy.bytes_down + place, bool(number % 2)
                async with self._opened(tmp_path / str(place), service, url) as running:
                    self._right_or_typed(await running.attempt(self.job()))

    @_in_parts
    @needs("service")
    async def test_bad_answers_are_typed_errors(self, tmp_path: Path, part: int) -> None:
        """Each answer in turn, and then it and all after it, replaced by pages, nothing, or something else."""
        async with self._behind_relay() as (service, relay, url):
            cases = [
                (kind, name, lasting)
                for kind in await self._distinct(tmp_path, service, relay, url)
                for name in bad_answers()
                for lasting in (False, True)
            ]
            for kind, name, lasting in self._few(cases, self.wrongs, part):
                spoil = from_kind(kind, bad_answers()[name], lasting=lasting)
                self._right_or_typed(await self._spoilt(tmp_path, service, relay, url, name, spoil=spoil))

    @_in_parts
    @needs("service")
    async def test_refusals_are_typed_errors_that_reveal_nothing(self, tmp_path: Path, part: int) -> None:
        """Each request in turn, and then it and all after it, is refused; some servers repeat what they were sent."""
        async with self._behind_relay() as (service, relay, url):
            cases = [
                (kind, name, lasting)
                for kind in await self._distinct(tmp_path, service, relay, url)
                for name in bad_refusals()
                for lasting in (False, True)
            ]
            for kind, name, lasting in self._few(cases, self.wrongs, part):
                instead = from_kind(kind, bad_refusals()[name], lasting=lasting)
                self._right_or_typed(await self._spoilt(tmp_path, service, relay, url, name, instead=instead))

    @_in_parts
    @needs("service")
    async def test_values_of_wrong_types_are_typed_errors(self, tmp_path: Path, part: int) -> None:
        """Every value of every JSON answer, of another type or missing. A result may come of it, but a whole one."""
        async with self._behind_relay() as (service, relay, url):
            cases = [
                (kind, answered, body)
                for kind, answered in (await self._distinct(tmp_path, service, relay, url)).items()
                for body in wrong_bodies(answered.body, answered.content_type)
            ]
            for kind, answered, body in self._few(cases, self.wrongs, part):
                wrong = reply(answered.status, body, content_type=answered.content_type)
                spoil = from_kind(kind, wrong, lasting=False)
                await self._spoilt(tmp_path, service, relay, url, repr(body), spoil=spoil)

    @needs("service")
    async def test_an_odd_answer_with_a_result_in_it_is_a_result(self, tmp_path: Path) -> None:
        """What is in hand is paid for: it is kept, and nothing is begun a second time."""
        tried = 0
        async with self._behind_relay() as (service, relay, url):
            for kind, answered in (await self._distinct(tmp_path, service, relay, url)).items():
                label = answered.content_type
                for odd in self.odd(said_in(answered.body, label)):
                    tried, body = tried + 1, saying(odd, label)
                    spoil = from_kind(kind, reply(answered.status, body, content_type=label), lasting=False)
                    self._right(
                        await self._spoilt(tmp_path, service, relay, url, repr(odd)[:2000], spoil=spoil, silent=False)
                    )
        assert tried or type(self).odd is ConnectorConformance.odd, "odd() knows none of the answers that came"

    @needs("service")
    async def test_an_answer_is_read_by_its_bytes_whatever_its_label_says(self, tmp_path: Path) -> None:
        """Proxies and other servers label answers as they like; some put a byte order mark before them."""
        async with self._behind_relay() as (service, relay, url):
            for kind, answered in (await self._distinct(tmp_path, service, relay, url)).items():
                for body, label in other_labels(answered.body, answered.content_type):
                    spoil = from_kind(kind, reply(answered.status, body, content_type=label), lasting=False)
                    self._right(
                        await self._spoilt(
                            tmp_path, service, relay, url, f"{kind} as {label}", spoil=spoil, silent=False
                        )
                    )

    async def _distinct(self, folder: Path, service: Any, relay: Relay, url: str) -> dict[str, Answered]:
        """The kinds of requests that a job makes, each with the last answer to one of it."""
        async with self._opened(folder / "first", service, url, silent=False) as running:
            self._right(await running.attempt(self.job()))
        assert relay.exchanges, "nothing came through the relay: does the connector use the URL it is given?"
        return {kind_of(exchange.request): exchange for exchange in relay.exchanges}

    async def _spoilt(
        self,
        folder: Path,
        service: Any,
        relay: Relay,
        url: str,
        name: str,
        *,
        spoil: Spoil | None = None,
        instead: Spoil | None = None,
        silent: bool = True,
    ) -> JobResult | EmpTrioError:
        """Run a job with one of the relay's answers spoilt; ``name`` says how."""
        relay.exchanges.clear()
        relay.spoil, relay.instead = spoil or untouched, instead or untouched
        try:
            async with self._opened(folder / "spoilt", service, url, silent=silent) as running:
                return await running.attempt(self.job())
        except AssertionError as error:
            asked = [f"{exchange.request.method} {exchange.request.target}" for exchange in relay.exchanges]
            raise AssertionError(f"{error}\nspoilt: {name}; asked was {asked}") from error

    # --- the end from outside ---

    @_in_parts
    async def test_a_cancel_at_any_checkpoint_leaves_nothing_behind(self, tmp_path: Path, part: int) -> None:
        """Cancelled at each step of a job, one after the other on one connector, which then does the next job."""
        async with self.open_service() as service:
            url = self._url(service)
            async with self._opened(tmp_path, service, url) as running:
                steps = (await run_steps(functools.partial(running.attempt, self.job()))).steps
                for step in self._few(list(range(1, steps + _SPARE + 1)), self.cancels, part):
                    context = FakeAttempt(stop_remote_work=bool(step % 2))
                    stepped = await run_steps(functools.partial(running.attempt, self.job(), context), cancel_at=step)
                    if stepped.returned is not None:
                        assert isinstance(stepped.returned, JobResult), (
                            f"cancelled at step {step}, it raised {stepped.returned!r}"
                        )
                        self.check(stepped.returned)
                self._right(await running.attempt(self.job()))

    @_in_parts
    @needs("cancellation")
    async def test_a_cancel_stops_the_work_or_leaves_it_to_the_next_attempt(self, tmp_path: Path, part: int) -> None:
        """Work that runs after a cancel is known to the checkpoint; where nobody wants it any more, it is stopped."""
        async with self.open_service() as service:
            url = self._url(service)
            async with self._opened(tmp_path, service, url) as running:
                known = 0
                call = functools.partial(running.attempt, self.long_job(service))
                steps = (await run_steps(call, seconds=0.1)).steps
                for step in self._few(list(range(1, steps + _SPARE + 1)), self.cancels // 2, part):
                    for stop in (False, True):
                        context = FakeAttempt(stop_remote_work=stop)
                        call = functools.partial(running.attempt, self.long_job(service), context)
                        stepped = await run_steps(call, cancel_at=step, seconds=0.5)
                        assert stepped.returned is None, f"cancelled at step {step}, it said {stepped.returned!r}"
                        known += not stop and context.knows_work
                        what = f"work runs on that was cancelled at step {step}, stop_remote_work={stop}"
                        await until(functools.partial(self._at_most, service, known), what, limit=self.limit)

    @needs("job_status")
    async def test_the_next_attempt_adopts_what_an_earlier_one_began(self, tmp_path: Path) -> None:
        """Stopped as soon as the work is known, the next attempt brings its result, and nothing is begun again."""
        async with self.open_service() as service:
            url = self._url(service)
            async with self._opened(tmp_path, service, url) as running:
                job, reporter = self.job(), FakeAttempt(stop_remote_work=False)
                async with trio.open_nursery() as nursery:

                    async def first() -> None:
                        await running.attempt(job, reporter)
                        nursery.cancel_scope.cancel()

                    nursery.start_soon(first)
                    await reporter.until_remembered()
                    nursery.cancel_scope.cancel()
                assert reporter.checkpoint is not None, "the connector remembers nothing of its work"
                begun = self.begun(service)
                again = msgspec.structs.replace(job, attempt=2, checkpoint=reporter.checkpoint)
                self._right(await running.attempt(again))
                assert self.begun(service) == begun, "the next attempt began the work again"

    async def test_the_service_stage_ends_in_time(self, tmp_path: Path) -> None:
        """A job that takes too long fails with the stage's name, and its work is stopped."""
        async with self.open_service() as service:
            url = self._url(service)
            job = self.long_job(service)
            async with self._opened(tmp_path, service, url) as running:
                self._late(await running.attempt(job, short_attempt()), "service")
                if self.connector.service_features.cancellation:
                    what = "the work of a job whose time is up runs on"
                    await until(lambda: self.running(service) == 0, what, limit=self.limit)

    @needs("assets")
    @pytest.mark.parametrize("stage", ["upload", "cdn"])
    async def test_the_stages_of_an_asset_end_in_time(self, tmp_path: Path, stage: Literal["upload", "cdn"]) -> None:
        """Storage or a CDN that never gets done costs the job that stage's time."""
        async with self.open_service() as service, open_toolbox(tmp_path / "assets") as usual:
            url = self._url(service)
            stuck = msgspec.structs.replace(usual, assets=StuckAssets(usual.assets, stage))
            async with self._opened(tmp_path, service, url, context=stuck) as running:
                outcome = await running.attempt(self.job(), FakeAttempt(limits=StageLimits(upload=0.1, cdn=0.1)))
                if not isinstance(outcome, JobResult) or outcome.output_files:
                    self._late(outcome, stage)

    @needs("assets")
    async def test_nothing_is_generated_that_could_not_be_stored(self, tmp_path: Path) -> None:
        """Where there is no storage, a job that would save files fails before the service has begun anything."""
        async with self.open_service() as service, open_toolbox(None) as nowhere:
            url = self._url(service)
            async with self._opened(tmp_path, service, url, context=nowhere) as running:
                before = self.begun(service)
                outcome = await running.attempt(self.job())
                if isinstance(outcome, JobResult):
                    assert not outcome.output_files, "files were saved nowhere"
                    return
                assert isinstance(outcome, ConfigError), f"without storage the job ended with {outcome!r}"
                assert self.begun(service) == before, "the service was set to work before the storage was checked"

    def _at_most(self, service: Any, running: int) -> bool:
        return self.running(service) <= running

    def _late(self, outcome: JobResult | EmpTrioError, stage: str) -> None:
        assert isinstance(outcome, DeadlineExceeded), f"the {stage} stage ended with {outcome!r}"
        assert outcome.stage == stage, f"the {outcome.stage} stage is named, not {stage}"

    # --- health, resources ---

    async def test_health(self, tmp_path: Path) -> None:
        """Healthy when the service is up; when it is down, or refuses the credentials, not, and it says why."""
        async with self.open_service() as service:
            url = self._url(service)
            async with self._opened(tmp_path, service, url) as running:
                if self.connector.service_features.health_check:
                    await self._healthy(running, True)
                await running.connector.models()
        if service is None or not self.connector.service_features.health_check:
            return
        async with open_proxy(1) as proxy:
            proxy.refuse = True
            async with self._opened(tmp_path, service, at(url, proxy.port)) as running:
                await self._healthy(running, False)
        if secrets_in(self.settings(service, url)):
            no = reply(401, json={"error": {"message": "wrong key", "code": "invalid_api_key"}})
            async with (
                open_faulty_server(no) as faulty,
                self._opened(tmp_path, service, at(url, faulty.port)) as running,
            ):
                await self._healthy(running, False)

    async def _healthy(self, running: Running, expected: bool) -> None:
        with trio.fail_after(self.limit):
            health = await running.connector.health()
            while expected and not health.healthy:  # a socket may still be on its way
                await trio.sleep(0.01)
                health = await running.connector.health()
        assert health.healthy is expected, f"the connector finds the service healthy: {health.healthy}"
        assert health.healthy or health.detail, "an unhealthy service, and no word why"

    @needs("service")
    async def test_closing_gives_everything_back(self, tmp_path: Path) -> None:
        """No connection is open after the connector was closed: after a job, and in the middle of one."""
        async with self._behind_proxy() as (service, proxy, url):
            async with self._opened(tmp_path, service, url) as running:
                self._right(await running.attempt(self.job()))
            await until(lambda: proxy.connections == 0, "connections are open after closing", limit=self.limit)
            job = self.long_job(service)
            async with self._opened(tmp_path, service, url) as running:
                with trio.move_on_after(0.2):
                    await running.attempt(job)
            await until(lambda: proxy.connections == 0, "connections are open after a cancel", limit=self.limit)

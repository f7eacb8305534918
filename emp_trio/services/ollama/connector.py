"""``OllamaConnector``: words, chats and embeddings by models on a server of one's own (Ollama reference, part B)."""

from __future__ import annotations

import base64
import math
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Final

import msgspec
import structlog
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.errors import EmpTrioError, InvalidJob, ServiceError
from emp_trio.jobs import Job, JobResult, SavedAsset
from emp_trio.offload import off_loop, weight
from emp_trio.protocols.auth import Auth, Bearer
from emp_trio.protocols.fetch import Fetches, FetchSettings
from emp_trio.protocols.http import Http, HttpSettings
from emp_trio.protocols.limits import Limits, LimitsSettings
from emp_trio.protocols.parsing import parse_or_empty
from emp_trio.protocols.saves_assets import SAVING, Generated, GeneratedFile, SavesAssets
from emp_trio.protocols.streaming import Streaming
from emp_trio.services.connector import Connector, Health, ServiceFeatures
from emp_trio.services.inputs import input_file
from emp_trio.services.lenient import flag
from emp_trio.services.ollama.answers import Words, ends, model_names, read_embeddings, strange_answer, timing, usage
from emp_trio.services.ollama.errors import describe_error, is_missing_model
from emp_trio.services.ollama.messages import Version
from emp_trio.services.ollama.pulls import PullProgress, pull_ends
from emp_trio.services.ollama.requests import PATHS, OllamaRequest, ollama_request
from emp_trio.services.ollama.settings import OllamaSettings, full_name, reached
from emp_trio.services.outputs import Output, decoded_files
from emp_trio.services.probing import not_told, probe
from emp_trio.services.redaction import redacted
from emp_trio.services.results import saved_asset
from emp_trio.settings import Env

log = structlog.get_logger(__name__)

_ASKING: Final = 5.0  # progress when the request is sent
_PULLED: Final = 50.0  # progress when a missing model has been downloaded
_SLOWNESS: Final = 200.0  # pieces after which progress is about two thirds of the way, where no limit is known


class OllamaConnector(Http, Limits, Fetches, Streaming, SavesAssets, Connector["OllamaConnector.Settings"]):
    """Jobs of an Ollama server: generate, chat, embeddings, the list of models, and the download of one.

    Words are streamed and saved as ``text/plain`` unless ``payload.save_assets`` is false; they are in the result in
    any case. Embeddings are saved only where they are too large for a result. A missing model that ``OLLAMA_AUTO_PULL``
    names is downloaded, and the job goes on. Ollama stops working for a client that goes away, so a cancel needs no
    call, and a next attempt begins anew.
    """

    service_type: ClassVar[str] = "ollama"
    service_features: ClassVar[ServiceFeatures] = ServiceFeatures(cancellation=True)

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """Settings of Ollama.

        ``base_url`` may be a host or host:port as well as a URL; ``http.timeout`` bounds the wait for the first piece
        of an answer, which may take as long as the model takes to load.
        """

        ollama: OllamaSettings = OllamaSettings()
        http: Annotated[
            HttpSettings,
            Env(
                base_url="${OLLAMA_BASE_URL:-${OLLAMA_HOST:-localhost}}",
                timeout="${OLLAMA_TIMEOUT_SECONDS:-300}",
                max_retries="${OLLAMA_RETRY_ATTEMPTS:-3}",
            ),
        ] = HttpSettings(base_url="localhost", timeout=300.0)
        limits: Annotated[LimitsSettings, Env(max_concurrent_jobs="${OLLAMA_MAX_CONCURRENT_JOBS:-1}")] = LimitsSettings(
            max_concurrent_jobs=1
        )
        fetch: FetchSettings = FetchSettings()

        def __post_init__(self) -> None:
            msgspec.structs.force_setattr(self, "http", reached(self.http, self.ollama))

    def auth(self) -> Auth:
        """The key of the hosted service; nothing for a local server."""
        return Bearer(self._ollama.api_key)

    def describe_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
        """Errors as Ollama says them."""
        return describe_error(status, headers, body)

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        """Run one attempt.

        Raises:
            InvalidJob: the payload asks for nothing, for something unknown, or for a download that is not allowed.
            ServiceError: Ollama failed or is out of reach.
            AssetError: the answer could not be saved; it is kept for the next attempt.
            trio.Cancelled: the connection is closed, at which Ollama stops.
        """
        request = ollama_request(job.type, job.payload, default_model=self._ollama.model)
        for warning in request.warnings:
            log.warning(warning)
        return await self.assets.produce(
            job,
            context,
            make=lambda: self._make(request, job, context),
            result=partial(_result, request),
            expects_files=_saves_text(request, job),
        )

    async def health(self) -> Health:
        """Whether it is an Ollama server, and has the configured model or may download it."""
        path = self._ollama.health_path
        found = await probe(
            self.http, path, _version if path == "/api/version" else None, timeout=self._ollama.call_timeout
        )
        if not found.healthy or path == "none":
            return found
        try:
            installed = await self.models()
        except EmpTrioError as error:
            return not_told(error) or Health(healthy=False, detail=error.message)
        model = self._ollama.model
        if full_name(model) in map(full_name, installed):
            return found
        if self._ollama.may_pull(model):
            return Health(healthy=True, detail=f"the model {model} is missing and will be pulled for the first job")
        return Health(
            healthy=False,
            detail=f"the server lacks the model {model} (OLLAMA_DEFAULT_MODEL): install it with `ollama pull {model}`, "
            "or add it to OLLAMA_AUTO_PULL",
        )

    async def models(self) -> list[str]:
        """Names of the installed models."""
        return model_names((await self.http.request("GET", PATHS["models"], timeout=self._ollama.call_timeout)).json())

    @property
    def _ollama(self) -> OllamaSettings:
        return self.settings.ollama

    async def _make(self, request: OllamaRequest, job: Job, context: AttemptContext) -> Generated:
        match request.operation:
            case "models":
                return Generated(files=(), data={"models": await self.models()})
            case "pull":
                return Generated(files=(), data=await self._pull(request.model, context, up_to=SAVING))
        body = await self._with_input_images(request.body)
        try:
            return await self._ask(request, body, job, context, _ASKING)
        except ServiceError as error:
            if not is_missing_model(error) or not self._ollama.may_pull(request.model):
                raise
        log.info("ollama.pull", model=request.model, job_id=job.id)
        await self._pull(request.model, context, up_to=_PULLED)
        return await self._ask(request, body, job, context, _PULLED)

    async def _ask(
        self, request: OllamaRequest, body: dict[str, Any], job: Job, context: AttemptContext, begin: float
    ) -> Generated:
        async with self.limiter.limit():
            context.report(begin, f"asking {request.model}")
            if request.operation == "embed":
                return await self._embed(request, body)
            words, data = await self._words(request, body, context, begin)
        files: tuple[GeneratedFile, ...] = ()
        if words.images:
            had = await decoded_files([Output(source=image) for image in words.images], images=True)
            files, data = had.files, data | {"warnings": [*data.get("warnings", ()), *had.warnings]}
        if _saves_text(request, job) and data["text"]:
            files = (*files, GeneratedFile(data=data["text"].encode(), media_type="text/plain"))
        return Generated(files=files, data=data)

    async def _words(
        self, request: OllamaRequest, body: dict[str, Any], context: AttemptContext, begin: float
    ) -> tuple[Words, dict[str, Any]]:
        words = Words()
        most = body.get("options", {}).get("num_predict")

        async def take(line: Any) -> None:
            await off_loop(weight(line), words.feed, line)
            share = _share(words.pieces, most)
            doing = "thinking" if words.thinking else "writing"
            context.report(begin + (SAVING - begin) * share, f"{request.model} is {doing}: {words.pieces} pieces")

        try:
            await self._follow(request.path, body, take, ends, self.settings.http.timeout, self._ollama.line_timeout)
        except ServiceError as error:
            if error.type == "network_error" and words.strange is not None and not words.pieces:
                raise strange_answer(words.strange) from error
            raise
        return words, words.finish()

    async def _embed(self, request: OllamaRequest, body: dict[str, Any]) -> Generated:
        answer = (
            await self.http.request(
                "POST", request.path, json=body, idempotent=True, timeout=self._ollama.embed_timeout
            )
        ).json()
        vectors = read_embeddings(answer, count=1 if request.single else len(body["input"]))
        found: Any = vectors[0] if request.single else vectors
        data: dict[str, Any] = {
            "content_type": "embeddings",
            "dimensions": len(vectors[0]),
            "count": len(vectors),
            "model_used": answer.get("model") or request.model,
            "usage": usage(answer),
            "timing": timing(answer),
        }
        encoded = msgspec.json.encode(found)
        if len(encoded) > self._ollama.inline_embedding_bytes:
            return Generated(files=(GeneratedFile(data=encoded, media_type="application/json"),), data=data)
        return Generated(files=(), data=data | {"embeddings": found})

    async def _pull(self, model: str, context: AttemptContext, *, up_to: float) -> dict[str, Any]:
        if not self._ollama.may_pull(model):
            raise InvalidJob(
                f"the model {model} may not be downloaded: add it to OLLAMA_AUTO_PULL on the worker",
                reason="unsupported_operation",
            )
        pull = PullProgress()

        async def take(line: Any) -> None:
            pull.feed(line)
            context.report(_ASKING + (up_to - _ASKING) * pull.share, f"downloading {model}: {pull.status}")

        silence = self._ollama.pull_line_timeout
        await self._follow(PATHS["pull"], {"model": model, "stream": True}, take, pull_ends, silence, silence)
        return {"model_used": model, "status": "success", "downloaded_bytes": pull.bytes}

    async def _follow(
        self,
        path: str,
        body: dict[str, Any],
        take: Callable[[Any], Awaitable[None]],
        last: Callable[[Any], bool],
        first: float,
        between: float,
    ) -> None:
        """Give every line of an answer to ``take``; the next one may take ``between`` seconds, the first ``first``."""
        begun = False
        with trio.CancelScope(deadline=trio.current_time() + first) as scope:
            async with self.streaming.lines(
                "POST", path, json=body, timeout=math.inf, until=last, keep_halves=True
            ) as lines:
                async for line in lines:
                    await take(line)
                    begun = True
                    scope.deadline = trio.current_time() + between
        if scope.cancelled_caught:
            silence = f"nothing more for {between:.3g} s" if begun else f"nothing for {first:.3g} s"
            loading = not begun and path != PATHS["pull"]
            raise ServiceError(
                f"POST {path}: Ollama said {silence}"
                + (" (a large model may need longer to load: OLLAMA_TIMEOUT_SECONDS)" if loading else ""),
                type="timeout",
                reason="processing_timeout",
                maybe_started=True,
            )

    async def _with_input_images(self, body: dict[str, Any]) -> dict[str, Any]:
        """``body`` with every image as bare base64, the only form that Ollama takes (Ollama reference B2)."""
        if "messages" in body:
            return body | {"messages": [await self._with_images(message) for message in body["messages"]]}
        return await self._with_images(body)

    async def _with_images(self, holder: dict[str, Any]) -> dict[str, Any]:
        if not holder.get("images"):
            return holder
        return holder | {"images": [await self._image(source) for source in holder["images"]]}

    async def _image(self, source: Any) -> str:
        return base64.b64encode((await input_file(self.fetcher, source)).data).decode()


def _version(answer: Any) -> Health:
    if parse_or_empty(Version, answer).version:
        return Health(healthy=True)
    return Health(healthy=False, detail="what answers is no Ollama server: look at OLLAMA_BASE_URL")


def _saves_text(request: OllamaRequest, job: Job) -> bool:
    return request.operation in ("generate", "chat") and flag(job.payload, "save_assets", default=True)


def _share(pieces: int, most: Any) -> float:
    """How much of an answer has come, from 0 to 1: of its limit where it has one, else a guess that never arrives."""
    if isinstance(most, int) and most > 0:
        return min(1.0, pieces / most)
    return 1.0 - math.exp(-pieces / _SLOWNESS)


def _result(request: OllamaRequest, made: dict[str, Any], saved: list[SavedAsset]) -> JobResult:
    data = dict(made)
    warnings = [*request.warnings, *data.pop("warnings", ())]
    metadata: dict[str, Any] = {"warnings": warnings} if warnings else {}
    if saved:
        metadata["saved_asset"] = saved_asset(saved[0])
        data |= {"mime_type": saved[0].media_type, "asset_url": saved[0].cdn_url, "saved_asset": saved_asset(saved[0])}
    return JobResult(
        success=True,
        data=data,
        metadata=metadata,
        output_files=tuple(asset.output_file() for asset in saved),
        service_metadata={
            "service_version": "ollama",
            "service_type": OllamaConnector.service_type,
            **{name: made[name] for name in ("model_used", "usage", "timing") if name in made},
        },
        raw_request_payload=redacted(request.body),
    )

"""``ComfyUIWebSocketConnector`` and ``ComfyUIRemoteConnector``: graphs run by ComfyUI, here or elsewhere."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

import msgspec

from emp_trio.attempt import AttemptContext
from emp_trio.connector_context import ConnectorContext
from emp_trio.jobs import Job, JobResult
from emp_trio.protocols.fetch import Fetcher, Fetches, FetchSettings
from emp_trio.protocols.http import Http, HttpSettings
from emp_trio.protocols.saves_assets import AssetSaver, SavesAssets
from emp_trio.protocols.websocket import WebSocket, WebSocketSettings
from emp_trio.services.comfyui.graph import read_workflow
from emp_trio.services.comfyui.mixin import ComfyUI
from emp_trio.services.comfyui.prompt import Ran, run_prompt
from emp_trio.services.comfyui.result import collect
from emp_trio.services.comfyui.server import ComfyUIServer
from emp_trio.services.comfyui.settings import SERVICE_TYPE, ComfyUISettings, located
from emp_trio.services.comfyui.tracker import FollowSettings
from emp_trio.services.connector import Connector, ServiceFeatures
from emp_trio.services.lenient import flag
from emp_trio.services.previews import Previews, PreviewSettings, with_previews
from emp_trio.settings import Env

_FEATURES: Final = ServiceFeatures(job_status=True, cancellation=True, queue_introspection=True)


class ComfyUIWebSocketConnector(
    ComfyUI, Http, WebSocket, Fetches, SavesAssets, Connector["ComfyUIWebSocketConnector.Settings"]
):
    """A ComfyUI on this machine, stock or with extensions.

    ``payload.workflow`` (or the payload itself) is a graph in API format. Its files are saved as assets; a run that an
    earlier attempt has begun is waited for instead of being repeated.
    """

    service_type: ClassVar[str] = SERVICE_TYPE
    service_features: ClassVar[ServiceFeatures] = _FEATURES

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """Settings of a ComfyUI on this machine."""

        comfyui: Annotated[
            ComfyUISettings,
            Env(
                host="${COMFYUI_HOST:-localhost}",
                port="${COMFYUI_PORT:-${COMFYUI_BASE_PORT:-8188}}",
                secure="${COMFYUI_SECURE:-false}",
                username="${COMFYUI_USERNAME:-}",
                password="${COMFYUI_PASSWORD:-}",  # noqa: S106 - a reference
                api_key="${COMFYUI_API_KEY:-}",
            ),
        ] = ComfyUISettings(host="localhost")
        http: HttpSettings = HttpSettings(base_url="")
        websocket: Annotated[WebSocketSettings, Env(url="${COMFYUI_WS_URL:-}")] = WebSocketSettings(url="")
        follow: FollowSettings = FollowSettings()
        preview: PreviewSettings = PreviewSettings()
        fetch: FetchSettings = FetchSettings()

    def __init__(self, settings: Settings, connector_context: ConnectorContext) -> None:
        super().__init__(located(settings), connector_context)

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        """Run one attempt.

        Raises:
            InvalidJob: there is no graph that can be sent, or an input file can't be used.
            ServiceError: ComfyUI refused, failed or lost it, or is out of reach.
            AssetError: a file could not be saved.
            trio.Cancelled: after the prompt was stopped, where ``context.stop_remote_work`` says so.
        """
        return await _run(
            job,
            context,
            server=self.server,
            fetcher=self.fetcher,
            saver=self.assets,
            follow=self.settings.follow,
            preview=self.settings.preview,
        )


class ComfyUIRemoteConnector(
    ComfyUI, Http, WebSocket, Fetches, SavesAssets, Connector["ComfyUIRemoteConnector.Settings"]
):
    """A ComfyUI on another machine, often behind a proxy and shared with others.

    ``base_url`` may say all of scheme, host, path and query; ``verify_tls: false`` accepts a certificate of its own
    making. Otherwise as :class:`ComfyUIWebSocketConnector`.
    """

    service_type: ClassVar[str] = SERVICE_TYPE
    service_features: ClassVar[ServiceFeatures] = _FEATURES

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """Settings of a ComfyUI on another machine."""

        comfyui: Annotated[
            ComfyUISettings,
            Env(
                host="${WORKER_COMFYUI_REMOTE_HOST}",
                port="${WORKER_COMFYUI_REMOTE_PORT:-8188}",
                secure="${WORKER_COMFYUI_REMOTE_SECURE:-false}",
                username="${WORKER_COMFYUI_REMOTE_USERNAME:-}",
                password="${WORKER_COMFYUI_REMOTE_PASSWORD:-}",  # noqa: S106 - a reference
                api_key="${WORKER_COMFYUI_REMOTE_API_KEY:-}",
            ),
        ]
        http: HttpSettings = HttpSettings(base_url="")
        websocket: WebSocketSettings = WebSocketSettings(url="")
        follow: FollowSettings = FollowSettings()
        preview: PreviewSettings = PreviewSettings()
        fetch: FetchSettings = FetchSettings()

    def __init__(self, settings: Settings, connector_context: ConnectorContext) -> None:
        super().__init__(located(settings), connector_context)

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        """Run one attempt; errors and cancellation as of :meth:`ComfyUIWebSocketConnector.run`."""
        return await _run(
            job,
            context,
            server=self.server,
            fetcher=self.fetcher,
            saver=self.assets,
            follow=self.settings.follow,
            preview=self.settings.preview,
        )


async def _run(
    job: Job,
    context: AttemptContext,
    *,
    server: ComfyUIServer,
    fetcher: Fetcher,
    saver: AssetSaver,
    follow: FollowSettings,
    preview: PreviewSettings,
) -> JobResult:
    workflow = read_workflow(job.payload)
    flag(job.payload, "include_temp", default=False)  # what can't be read is said before the work, not after it
    saver.check(job)  # before a GPU is kept busy

    async def make(previews: Previews) -> Ran:
        return await run_prompt(server, fetcher, follow, job=job, context=context, workflow=workflow, previews=previews)

    ran = await with_previews(saver, job, context, preview, make)
    return await collect(server, saver, job, context, workflow, ran)

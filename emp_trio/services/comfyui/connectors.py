"""``ComfyUIWebSocketConnector`` and ``ComfyUIRemoteConnector``: graphs run by ComfyUI, here or elsewhere."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

import msgspec

from emp_trio.attempt import AttemptContext
from emp_trio.jobs import Job, JobResult
from emp_trio.protocols.fetch import Fetches, FetchSettings
from emp_trio.protocols.http import Http, HttpSettings
from emp_trio.protocols.saves_assets import SavesAssets
from emp_trio.protocols.websocket import WebSocket, WebSocketSettings
from emp_trio.services.comfyui.graph import read_workflow
from emp_trio.services.comfyui.prompt import run_prompt
from emp_trio.services.comfyui.result import collect
from emp_trio.services.comfyui.server import ComfyUIServer
from emp_trio.services.comfyui.settings import ComfyUISettings
from emp_trio.services.comfyui.tracker import FollowSettings
from emp_trio.services.connector import Connector, ServiceFeatures
from emp_trio.services.lenient import flag
from emp_trio.services.previews import PreviewSettings, with_previews
from emp_trio.settings import Env

_FEATURES: Final = ServiceFeatures(job_status=True, cancellation=True, queue_introspection=True)


class ComfyUIWebSocketConnector(ComfyUIServer, Http, WebSocket, Fetches, SavesAssets, Connector):
    """A ComfyUI on this machine, stock or with extensions.

    ``payload.workflow`` (or the payload itself) is a graph in API format. Its files are saved as assets; a run that an
    earlier attempt has begun is waited for instead of being repeated.
    """

    service_type: ClassVar[str] = "comfyui"
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

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        """Run one attempt.

        Raises:
            InvalidJob: there is no graph that can be sent, or an input file can't be used.
            ServiceError: ComfyUI refused, failed or lost it, or is out of reach.
            AssetError: a file could not be saved.
            trio.Cancelled: after the prompt was stopped, where ``context.stop_remote_work`` says so.
        """
        return await _run(self, job, context)


class ComfyUIRemoteConnector(ComfyUIServer, Http, WebSocket, Fetches, SavesAssets, Connector):
    """A ComfyUI on another machine, often behind a proxy and shared with others.

    ``base_url`` may say all of scheme, host, path and query; ``verify_tls: false`` accepts a certificate of its own
    making. Otherwise as :class:`ComfyUIWebSocketConnector`.
    """

    service_type: ClassVar[str] = "comfyui"
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

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        """Run one attempt; errors and cancellation as of :meth:`ComfyUIWebSocketConnector.run`."""
        return await _run(self, job, context)


async def _run(connector: Any, job: Job, context: AttemptContext) -> JobResult:
    workflow = read_workflow(job.payload)
    flag(job.payload, "include_temp", default=False)  # what can't be read is said before the work, not after it
    connector.check_storage(job)  # before a GPU is kept busy
    ran = await with_previews(
        connector,
        job,
        context,
        connector.settings.preview,
        lambda previews: run_prompt(connector, job, context, workflow, previews),
    )
    return await collect(connector, job, context, workflow, ran)

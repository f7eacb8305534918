"""The outputs of a finished prompt as the job's result: files streamed into storage, texts, and the rest."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import structlog

from emp_trio.assets.media import is_text_instead
from emp_trio.attempt import AttemptContext
from emp_trio.errors import ServiceError
from emp_trio.jobs import Job, JobResult, SavedAsset
from emp_trio.offload import off_loop, weight
from emp_trio.protocols.saves_assets import AssetSaver
from emp_trio.secrets import excerpt
from emp_trio.services.comfyui.graph import Workflow, with_saved_images
from emp_trio.services.comfyui.outputs import File, Outputs, read_outputs
from emp_trio.services.comfyui.prompt import Ran, classes_of
from emp_trio.services.comfyui.savers import saves, silent_nodes
from emp_trio.services.comfyui.server import ComfyUIServer
from emp_trio.services.comfyui.settings import SERVICE_TYPE
from emp_trio.services.lenient import flag
from emp_trio.services.redaction import redacted
from emp_trio.services.remote_work import stop_work
from emp_trio.services.results import asset_data, saved_asset

log = structlog.get_logger(__name__)

_LONGEST_TEXT: Final = 100_000  # characters of one text in a result


async def collect(
    server: ComfyUIServer, saver: AssetSaver, job: Job, context: AttemptContext, workflow: Workflow, ran: Ran
) -> JobResult:
    """Save what a prompt has made.

    Args:
        server: has the files.
        saver: saves them.
        ran: the prompt.

    Raises:
        ServiceError: a file could not be fetched; where all are gone (4.8) they are made again by the next attempt. Or
            a node that saves has listed no file, and so there is nothing to fetch.
        AssetError: a file could not be saved.

    A file that is gone while others are there is named in a warning: those have been made, and are not made again.
    """
    outputs = read_outputs(ran.entry.outputs, include_temp=flag(job.payload, "include_temp", default=False))
    warnings = await _warnings(server, workflow, ran, outputs)
    saved: list[tuple[File, SavedAsset]] = []
    lost: list[ServiceError] = []
    for index, file in enumerate(outputs.files):
        context.report(90 + 9 * index / len(outputs.files), f"saving {index + 1} of {len(outputs.files)} files")
        try:
            async with server.calls.view(file) as stream:
                media_type = stream.headers.get("content-type")
                asset = await saver.save(stream.chunks(), job, context, media_type=media_type, index=index)
            _check(file, asset)
            saved.append((file, asset))
        except ServiceError as error:
            if error.status != 404 and not (file.guessed and error.status in (400, 403)):
                raise
            lost.append(_gone(file))
            lost[-1].__cause__ = error
    if lost and not saved:
        # Its entry would lead every later attempt to the same gap.
        await stop_work(server.calls.forget, ran.prompt_id, server.settings.cleanup_timeout)
        if outputs.files[0].guessed:  # it never was where it can be fetched from
            raise _nothing_saved(lost[0].message)
        raise lost[0]
    for gone in lost:
        log.warning("prompt.file_gone", prompt=ran.prompt_id, why=gone.message)
    warnings += [gone.message for gone in lost]
    context.report(100, "done")
    build = partial(_result, workflow, ran, outputs, saved, warnings)
    return await off_loop(weight(workflow.graph), build)


async def _warnings(server: ComfyUIServer, workflow: Workflow, ran: Ran, outputs: Outputs) -> list[str]:
    """What is said of nodes that save and have listed no file, beside others that have.

    Raises:
        ServiceError: there is no other file either, or none but previews. It is final: the work has been done, and
            would end in the same way again.
    """
    graph = with_saved_images(workflow.graph)
    mute = silent_nodes(graph, ran.entry.outputs, ran.entry.targets)
    if not mute:
        return []
    try:
        classes = await classes_of(server, {key: graph[key] for key in mute})
    except ServiceError as error:  # nothing that is asked for now may cost a finished prompt
        log.debug("prompt.classes_unknown", error=error.message)
        classes = {}
    silent = [f"{key!r} ({name})" for key, name in mute.items() if saves(name, classes.get(name))]
    if not silent:
        return []
    text = f"no file is listed by node {', '.join(silent)}"
    if any(file.type == "output" for file in outputs.files):
        log.warning("prompt.silent_node", prompt=ran.prompt_id, nodes=silent)
        return [text]
    await stop_work(server.calls.forget, ran.prompt_id, server.settings.cleanup_timeout)
    raise _nothing_saved(text)


def _nothing_saved(why: str) -> ServiceError:
    return ServiceError(
        f"the prompt has ended well, and {why}: it has saved nothing, or to a place of its own that can't be fetched "
        "from. Let it save into ComfyUI's output folder and show what it has saved, or use SaveImage",
        code="nothing_saved",
        type="response_error",
        reason="missing_expected_data",
        retry=False,
        maybe_started=True,
    )


def _check(file: File, asset: SavedAsset) -> None:
    """An image, a video or a sound by its name must not be a text by its bytes: in front of a server there may be a
    proxy with pages and errors of its own. What was stored of it is replaced by the next attempt."""
    if is_text_instead(file.filename, asset.media_type):
        raise ServiceError(
            f"the server sent {asset.media_type} in place of the file {file.filename!r} of node {file.node!r}",
            type="response_error",
            reason="unexpected_content_type",
            retry=True,
        )


def _gone(file: File) -> ServiceError:
    return ServiceError(
        f"the file {file.filename!r} of node {file.node!r} is gone from the server",
        type="response_error",
        reason="missing_expected_data",
        retry=True,
        maybe_started=True,
    )


def _result(
    workflow: Workflow,
    ran: Ran,
    outputs: Outputs,
    saved: list[tuple[File, SavedAsset]],
    warnings: list[str],
) -> JobResult:
    data: dict[str, Any] = {"prompt_id": ran.prompt_id, "cached": ran.cached}
    if outputs.texts:
        data["text"] = "\n".join(excerpt(text, _LONGEST_TEXT) for text in outputs.texts)
    if saved:
        data |= asset_data(saved[0][1])
    listed = [
        {"node": file.node, "key": file.key, "type": file.type, "file_name": asset.file_name} for file, asset in saved
    ]
    metadata: dict[str, Any] = {"comfyui_outputs": {"files": listed, "other": redacted(outputs.other)}}
    if saved:
        metadata["saved_asset"] = saved_asset(saved[0][1])
    if warnings:
        metadata["warnings"] = warnings
    return JobResult(
        success=True,
        data=data,
        metadata=metadata,
        output_files=tuple(asset.output_file() for _, asset in saved),
        service_metadata={
            "service_version": "comfyui",
            "service_type": SERVICE_TYPE,
            "service_job_id": ran.prompt_id,
            "adopted": ran.adopted,
        },
        raw_request_payload=redacted({"prompt": workflow.graph}),
    )

"""One attempt of a job as a prompt of ComfyUI: prepared, sent or adopted, followed to its end (ComfyUI reference 8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
import structlog
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.errors import NotStarted, ServiceError
from emp_trio.jobs import Job
from emp_trio.protocols.fetch import Fetcher
from emp_trio.services.comfyui.calls import NOT_TOLD
from emp_trio.services.comfyui.classes import NodeClass, check_classes, file_inputs, with_titles
from emp_trio.services.comfyui.errors import refused
from emp_trio.services.comfyui.graph import (
    Graph,
    Workflow,
    made_unique,
    prompt_id_of,
    with_inputs,
    with_saved_images,
)
from emp_trio.services.comfyui.history import Entry, QueueState
from emp_trio.services.comfyui.messages import Event, Preview
from emp_trio.services.comfyui.savers import takes_path
from emp_trio.services.comfyui.server import ComfyUIServer
from emp_trio.services.comfyui.stopping import stop_prompt
from emp_trio.services.comfyui.tracker import FollowSettings, Tracker
from emp_trio.services.inputs import IMAGES, input_file
from emp_trio.services.previews import Previews
from emp_trio.services.probing import NO_ROUTE
from emp_trio.services.remote_work import stop_work, uninterrupted

log = structlog.get_logger(__name__)

KEY: Final = "comfyui"
"""Name of the checkpoint."""

_KINDS: Final = IMAGES | {
    "video/mp4",
    "video/webm",
    "video/quicktime",
    "video/x-matroska",
    "audio/wav",
    "audio/mpeg",
    "audio/ogg",
    "audio/flac",
    "audio/mp4",
}


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt that has succeeded.

    Attributes:
        prompt_id: its id.
        entry: its end, as the history tells it.
        cached: every node's result was reused, as far as anybody heard.
        adopted: an earlier attempt had sent it.
    """

    prompt_id: str
    entry: Entry
    cached: bool
    adopted: bool


async def run_prompt(
    server: ComfyUIServer,
    fetcher: Fetcher,
    follow: FollowSettings,
    *,
    job: Job,
    context: AttemptContext,
    workflow: Workflow,
    previews: Previews,
) -> Ran:
    """Run a job's graph, or wait for the run that an earlier attempt has begun.

    The prompt's id follows from the job's, and the server does not mind the same id twice: so a later attempt looks at
    queue and history before it sends anything, and sending is not torn in two by a cancel.

    Args:
        server: runs it.
        fetcher: gets its input files.
        follow: how long it may take.
        job: names the prompt.
        context: hears of it.
        workflow: what to run.
        previews: takes what the prompt shows before its end.

    Raises:
        InvalidJob: the graph or one of its input files can't be used.
        ServiceError: the server refused or failed it, lost it, or is gone.
        trio.Cancelled: after the prompt was stopped, where ``context.stop_remote_work`` says so.
    """
    run = _Run(server, fetcher, follow, job=job, context=context, workflow=workflow, previews=previews)
    with server.listening(run.prompt_id, run):
        try:
            entry = await run.end()
        except BaseException as error:
            cancelled = not isinstance(error, Exception)  # Cancelled, or a group of nothing else
            if run.sent and (run.to_be_stopped or (cancelled and context.stop_remote_work)):
                await run.stop()
            raise
    return Ran(prompt_id=run.prompt_id, entry=entry, cached=run.tracker.cached, adopted=run.adopted)


async def classes_of(server: ComfyUIServer, graph: Graph, *, again: bool = False) -> Mapping[str, NodeClass | None]:
    """The classes of a graph; empty where the server does not tell of them.

    Args:
        again: ask anew.
    """
    names = {node["class_type"] for node in graph.values()}
    try:
        return await server.node_classes(names, again=again)
    except ServiceError as error:
        if error.status not in NO_ROUTE and error.reason != NOT_TOLD:
            raise
        return {}  # a proxy that lets only a few routes through


class _Run:
    """The run of one attempt; receives the messages of its prompt."""

    def __init__(
        self,
        server: ComfyUIServer,
        fetcher: Fetcher,
        follow: FollowSettings,
        *,
        job: Job,
        context: AttemptContext,
        workflow: Workflow,
        previews: Previews,
    ) -> None:
        self.prompt_id = prompt_id_of(job.id)
        self.sent = False
        self.adopted = False
        self.to_be_stopped = False
        self._follow_settings = follow
        self.tracker = self._new_tracker(workflow)
        self._server = server
        self._fetcher = fetcher
        self._calls = server.calls
        self._settings = server.settings
        self._job = job
        self._progress = context
        self._workflow = workflow
        self._previews = previews
        self._stirred = trio.Event()

    def _new_tracker(self, workflow: Workflow) -> Tracker:
        return Tracker(self.prompt_id, workflow.graph, self._follow_settings, now=trio.current_time())

    def take(self, event: Event) -> None:
        """A message about the prompt."""
        if isinstance(event, Preview):
            self._previews.take(event.data, event.media_type)
            return
        before = self.tracker.next_look
        self.tracker.hear(event, trio.current_time())
        self._report()
        if self.tracker.next_look < before:
            self._stirred.set()

    def lost(self, error: ServiceError) -> None:
        """The socket is gone; the prompt is not."""
        self.tracker.unheard(trio.current_time())
        self._stirred.set()

    async def end(self) -> Entry:
        """Find or send the prompt, and wait for its end."""
        if not await self._adopt():
            if self._server.probe.doubt:  # it became suspect while the job was claimed
                raise _not_begun(self._server.probe.doubt, retry_after=self._settings.canary_interval)
            graph = await self._prepare()
            await self._progress.save_checkpoint({KEY: {"server": self._server.address, "prompt": self.prompt_id}})
            await uninterrupted(lambda _: self._send(graph), grace=self._settings.cleanup_timeout)
        await self._follow()
        entry = self.tracker.entry
        if entry is None:
            failure = self.tracker.failure
            assert failure is not None
            if failure.type == "timeout" and failure.reason in ("queue_timeout", "processing_timeout"):
                self.to_be_stopped = True
                self._server.probe.suspect(self.prompt_id)
            raise failure
        if entry.error is not None:
            await stop_work(self._calls.forget, self.prompt_id, self._settings.cleanup_timeout)
            raise entry.error
        return entry

    async def stop(self) -> None:
        """Stop the prompt, within the cleanup's time; a server that does not let itself be stopped is suspected."""
        stopped = trio.Event()

        async def stop(prompt_id: str) -> None:
            how = await stop_prompt(self._calls, prompt_id)
            stopped.set()
            await self._calls.forget(prompt_id)  # whatever it has made by now is not to be adopted
            log.info("prompt.stopped", prompt=prompt_id, how=how)

        await stop_work(stop, self.prompt_id, self._settings.cleanup_timeout)
        if not stopped.is_set():
            self._server.probe.suspect(self.prompt_id)

    async def _adopt(self) -> bool:
        """Whether an earlier attempt's prompt is there to be waited for."""
        if self._job.attempt == 1 and not self._job.checkpoint:
            return False
        queue_state: QueueState = (await self._calls.queue()).state_of(self.prompt_id)
        entry = await self._calls.entry(self.prompt_id)
        # An end that was told to nobody counts, but for one that another attempt may spare the job.
        if entry is not None and entry.error is not None and entry.error.retry and queue_state == "absent":
            return False
        if entry is None and queue_state == "absent":
            return False
        self.sent = self.adopted = True
        self.tracker.unheard(trio.current_time())
        self.tracker.looked(queue_state, entry if queue_state == "absent" else None, trio.current_time())
        log.info("prompt.adopted", prompt=self.prompt_id, place=queue_state if entry is None else "ended")
        self._progress.report(5, "found the prompt of an earlier attempt in ComfyUI")
        return True

    async def _prepare(self) -> Graph:
        """The graph as it is sent: checked, with its input files uploaded, and with file names of its own."""
        self._progress.report(1, "checking the graph")
        graph, classes = await self._checked(with_saved_images(self._workflow.graph))
        names: dict[tuple[str, str], str] = {}
        stored: dict[str, str] = {}
        for wanted in file_inputs(graph, classes):
            if wanted.source not in stored:
                self._progress.report(3, "uploading input files")
                file = await input_file(self._fetcher, wanted.source, kinds=_KINDS)
                stored[wanted.source] = await self._calls.upload(file, self.prompt_id)
            names[wanted.node, wanted.input] = stored[wanted.source]
        graph = with_titles(with_inputs(graph, names), classes)
        return made_unique(
            graph,
            f"{self.prompt_id}/{self._job.attempt}",
            lambda node: takes_path(node, classes.get(node["class_type"])),
        )

    async def _checked(self, graph: Graph) -> tuple[Graph, Mapping[str, NodeClass | None]]:
        """What can be run of the graph, and its classes, where the server tells of them."""
        partial = self._settings.accept_partial
        classes = await classes_of(self._server, graph)
        try:
            sent = check_classes(graph, classes, partial=partial)
            lacking = len(sent) < len(graph)
        except ServiceError:
            lacking = True
        if lacking:  # it may have got it since
            classes = await classes_of(self._server, graph, again=True)
            sent = check_classes(graph, classes, partial=partial)
        if left := [key for key in graph if key not in sent]:
            log.warning("prompt.partial", prompt=self.prompt_id, left_out=left)
        return sent, classes

    async def _send(self, graph: Graph) -> None:
        """Queue the prompt. What becomes of an answer that nobody can make sense of is for queue and history to say."""
        self._progress.report(5, "sending the graph to ComfyUI")
        await self._calls.forget(self.prompt_id)  # whatever is found under this id from now on is this very run
        self.tracker = self._new_tracker(self._workflow)
        if not self._server.connected:
            self.tracker.unheard(trio.current_time())
        self.sent = True
        body = {"prompt": graph, "prompt_id": self.prompt_id, "client_id": self._server.client_id}
        if self._workflow.extra_data:
            body["extra_data"] = self._workflow.extra_data
        try:
            node_errors = await self._calls.submit(body)
        except ServiceError as error:
            if not error.maybe_started:
                self.sent = False
                raise
            log.warning("prompt.unsure", prompt=self.prompt_id, error=error.message)
            return
        if node_errors and not self._settings.accept_partial:
            self.to_be_stopped = True
            raise refused(None, node_errors)

    async def _follow(self) -> None:
        """Wait for the end, by whichever way it is heard of."""
        while not self.tracker.concluded:
            with trio.move_on_at(self.tracker.next_look):
                await self._stirred.wait()
            self._stirred = trio.Event()
            if trio.current_time() >= self.tracker.next_look:
                await self._look()

    async def _look(self) -> None:
        try:
            queue_state: QueueState | None = None
            if self.tracker.wants_queue:
                look = await self._calls.queue()
                queue_state = look.state_of(self.prompt_id)
                if queue_state == "pending":
                    self._server.probe.watch(look)
                    if self._server.probe.doubt:
                        queue_state = await self._take_back()
                    waiting = f"waiting in ComfyUI's queue, {look.before(self.prompt_id)} before it"
                    self._progress.report(5, waiting)
            entry = await self._calls.entry(self.prompt_id)
        except NotStarted:
            raise
        except ServiceError as error:
            self.tracker.look_failed(error, trio.current_time())
        else:
            self.tracker.looked(queue_state, entry, trio.current_time())

    async def _take_back(self) -> QueueState:
        """Take a prompt that waits in a server that does no work out of its queue.

        Returns:
            where it is, if it had begun in this moment.

        Raises:
            ServiceError: (NotStarted) it has not begun, and will not.
        """
        why = self._server.probe.doubt
        await self._calls.delete(self.prompt_id)
        queue_state: QueueState = (await self._calls.queue()).state_of(self.prompt_id)
        if queue_state == "absent" and await self._calls.entry(self.prompt_id) is None:
            self.sent = False
            log.warning("prompt.taken_back", prompt=self.prompt_id, why=why)
            raise _not_begun(why)
        return queue_state

    def _report(self) -> None:
        if self.tracker.queue_state == "running":
            what = "all results are cached" if self.tracker.cached else f"running node {self.tracker.node}"
            shown = f", preview: {self._previews.url}" if self._previews.url else ""
            self._progress.report(10 + 80 * self.tracker.fraction, what + shown, step=self.tracker.node)


def _not_begun(why: str, *, retry_after: float | None = None) -> NotStarted:
    return NotStarted(f"the job was not begun: {why}", code="suspect", retry_after=retry_after)

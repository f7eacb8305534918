"""Track a prompt by WebSocket messages, the queue and the history (ComfyUI reference 4, 8). Pure.

From timed observations, it decides the next poll, the progress and the outcome.

Only an entry in the history ends a prompt well, and only its absence from queue and history, seen twice, ends it as
lost. Messages make it quick and give progress; any of them may be missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.services.comfyui.errors import late, lost
from emp_trio.services.comfyui.history import Entry, QueueState
from emp_trio.services.comfyui.messages import (
    Cached,
    Ended,
    Event,
    Executed,
    Executing,
    Failed,
    Interrupted,
    NodeStates,
    Started,
    Step,
    Succeeded,
)

_Seconds = Annotated[float, msgspec.Meta(gt=0)]

_NEARLY: Final = 0.999  # 1 is for a prompt whose files have been collected


class FollowSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a prompt is followed. All times in seconds.

    Attributes:
        poll_interval: longest time between two looks; the first ones, and those without a socket, come sooner.
        poll_soon: shortest such time.
        marker_wait: after the message of an end, how long the end marker is waited for before the history is asked.
        history_wait: after an end, how long the history may lack the prompt before it counts as lost.
        outage_timeout: how long no look may succeed before the server counts as gone.
        busy_timeout: the same for a server that takes connections and does not answer: computing can hold it up.
        queue_timeout: longest time in the server's queue; None for no limit.
        silence_timeout: longest time that a running prompt may give no sign of life; models take minutes to load. Not
            for one whose messages go to a socket that is gone. None for no limit.
    """

    poll_interval: _Seconds = 5.0
    poll_soon: _Seconds = 1.0
    marker_wait: _Seconds = 1.0
    history_wait: _Seconds = 5.0
    outage_timeout: _Seconds = 15.0
    busy_timeout: _Seconds = 120.0
    queue_timeout: _Seconds | None = None
    silence_timeout: _Seconds | None = 900.0


class Tracker:
    """The state of one prompt.

    Args:
        prompt_id: messages of other prompts are not for it.
        nodes: ids of the graph's nodes.
        now: when it was submitted, on the clock of all later times.

    Attributes:
        entry: how the prompt ended, by the history.
        failure: why there will be no entry.
        queue_state: as it was seen last; None before the first sight.
        next_look: when to look next.
        fraction: how far it is, 0 to below 1; never goes back.
        cached: every node's result was reused.
        node: the node that runs, as people know it.
    """

    def __init__(self, prompt_id: str, nodes: Iterable[str], settings: FollowSettings, *, now: float) -> None:
        self.prompt_id = prompt_id
        self.entry: Entry | None = None
        self.failure: ServiceError | None = None
        self.queue_state: QueueState | None = None
        self.fraction = 0.0
        self.node = ""
        self._settings = settings
        self._nodes = frozenset(nodes)
        self._cached: set[str] = set()
        self._finished: set[str] = set()
        self._running: dict[str, float] = {}
        self._states = False
        self._since = now  # submitted
        self._sign = now  # of life: a message, or a change of place
        self._heard = False  # a message since the last look
        self._deaf = False
        self._answered = now  # by the server, to a look
        self._ended: float | None = None  # an end was announced
        self._absences = 0
        self._absent: float | None = None
        self._pause = settings.poll_soon
        self.next_look = now + self._pause

    @property
    def concluded(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.entry is not None or self.failure is not None

    @property
    def cached(self) -> bool:
        """Whether every node was reused."""
        return bool(self._nodes) and self._nodes <= self._cached

    @property
    def wants_queue(self) -> bool:
        """Whether the next look should ask for the queue, and before the history: it is heavy, and of no use as long as
        the socket talks."""
        return not self._heard

    def hear(self, event: Event, now: float) -> None:
        """A message about this prompt."""
        self._heard = True
        self._sign = now
        match event:
            case Ended():
                self._announced(now, now)
            case Succeeded() | Failed() | Interrupted():
                self._announced(now, now + self._settings.marker_wait)
            case Started() | Cached() | Executing() | Step() | NodeStates() | Executed():
                self.queue_state = "running"
                self._follow(event)

    def unheard(self, now: float) -> None:
        """Its messages go, or went, to a socket that is gone: none will come any more, and silence means nothing."""
        self._heard, self._deaf = False, True
        self._pause = self._settings.poll_soon
        self.next_look = min(self.next_look, now)

    def looked(self, queue_state: QueueState | None, entry: Entry | None, now: float) -> None:
        """A look has succeeded.

        Args:
            queue_state: of the prompt; None where it was not asked for.
            entry: in the history, asked for after the queue: between the two a prompt goes this way only.
        """
        self._answered = now
        self._heard = False
        if entry is not None:
            self.entry = entry
            return
        if queue_state in ("running", "pending") and queue_state != self.queue_state:
            self._sign = now
        if queue_state is not None:
            self.queue_state = queue_state if queue_state != "absent" else self.queue_state
        self._count(queue_state, now)
        self._time_out(now)
        self._plan(now)

    def look_failed(self, error: ServiceError, now: float) -> None:
        """A look has failed. The prompt goes on; but a server that stays away is gone."""
        patience = self._settings.busy_timeout if error.type == "timeout" else self._settings.outage_timeout
        if not error.retry or now - self._answered >= patience:
            error.maybe_started = True
            self.failure = error
        self._pause = self._settings.poll_soon
        self.next_look = now + self._pause

    def _announced(self, now: float, look_at: float) -> None:
        if self._ended is None:
            self._ended = now
            self._pause = self._settings.poll_soon / 20
        self.next_look = min(self.next_look, look_at)

    def _count(self, queue_state: QueueState | None, now: float) -> None:
        if queue_state is None:
            return
        if queue_state != "absent":
            self._absences, self._absent = 0, None
            return
        self._absences += 1
        self._absent = now if self._absent is None else self._absent
        patience = self._settings.history_wait if self._ended is not None else self._settings.poll_soon
        if self._absences > 1 and now - self._absent >= patience:
            self.failure = lost(self.prompt_id)

    def _time_out(self, now: float) -> None:
        queue, silence = self._settings.queue_timeout, self._settings.silence_timeout
        if self.queue_state != "running" and queue is not None and now - self._since >= queue:
            self.failure = late("queue_timeout", f"the prompt waited in ComfyUI's queue for {queue:.3g} s")
        elif self.queue_state == "running" and silence is not None and not self._deaf and now - self._sign >= silence:
            self.failure = late("processing_timeout", f"the running prompt gave no sign of life for {silence:.3g} s")

    def _plan(self, now: float) -> None:
        self.next_look = now + self._pause
        self._pause = min(self._pause * (2 if self._ended is not None else 1.5), self._settings.poll_interval)

    def _follow(self, event: Event) -> None:
        match event:
            case Cached(nodes=nodes):
                self._cached |= self._nodes.intersection(nodes)
            case Executing(node=node, display_node=shown):
                self.node = shown or node.partition(".")[0]
                if not self._states:  # one after the other, as servers without states run them
                    self._finished |= self._running.keys()
                self._running.setdefault(node, 0.0)
            case Step(node=node, value=value, max=most):
                self._running[node] = _share(value, most)
            case NodeStates(nodes=states):
                self._states = True
                self._finished |= {node for node, state in states.items() if state.state == "finished"}
                self._running |= {node: _share(s.value, s.max) for node, s in states.items() if s.state == "running"}
            case Executed(node=node):
                self._finished.add(node)
        self.fraction = max(self.fraction, min(_NEARLY, self._done()))

    def _done(self) -> float:
        """Share of the work that is done: nodes that were expanded from others (``5.0.1``) count with those."""
        left = self._nodes - self._cached
        finished = left & self._finished
        begun = sum(part for node, part in self._running.items() if node in left and node not in finished)
        return (len(finished) + begun) / len(left) if left else 1.0


def _share(value: float | None, most: float | None) -> float:
    return min(1.0, max(0.0, value / most)) if value is not None and most is not None and most > 0 else 0.0

"""Behavior of the fake ComfyUI, and the prompts in its queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

Say: TypeAlias = Callable[[str | None, "dict[str, Any] | bytes"], None]
"""Sends a message to the socket of a client id, or to all of them."""


class Behavior(msgspec.Struct, kw_only=True):
    """How the fake behaves from now on.

    Attributes:
        seconds: how long a sampler takes.
        any_class: unknown node classes are taken too.
        keep_cache: results of all prompts are reused, not only the last one's (``--cache-lru``).
        ignore_interrupts: an interrupt is accepted and has no effect.
        old_interrupts: an interrupt stops whatever runs, whatever id it names.
        empty_histories: so many looks at a prompt that has ended come back empty.
        mute: nothing is sent over sockets.
        hold_answers: the answer to a prompt comes after the prompt has ended.
        refuse_sockets: WebSockets are answered with 503.
        late_status: the first status of a socket comes after so many seconds.
        dead_thread: the worker thread dies of the next prompt that it takes, which then heads the queue until the
            server is started anew; HTTP and sockets stay healthy.
        free: bytes of device memory that are free.
        jobs: it has the jobs API, canonical ids, and its own replacements for old classes, as 0.33 has.
        listed: outputs of a class with a folder of its own, in which ``{name}`` stands for the name of its file and
            ``{folder}`` for the output folder; None as stock classes list it.
        replaced: old classes by name, each with the class that this server puts in its place.
    """

    seconds: float = 1.0
    any_class: bool = False
    keep_cache: bool = False
    ignore_interrupts: bool = False
    old_interrupts: bool = False
    empty_histories: int = 0
    mute: bool = False
    hold_answers: bool = False
    refuse_sockets: bool = False
    late_status: float = 0.0
    dead_thread: bool = False
    free: int = 8 * 2**30
    jobs: bool = False
    listed: dict[str, Any] | None = None
    replaced: dict[str, str] = {}


class Item(msgspec.Struct, kw_only=True):
    """A prompt in the queue."""

    number: float
    prompt_id: str
    graph: dict[str, Any]
    extra_data: dict[str, Any]
    outputs: list[str]

    @property
    def wire(self) -> list[Any]:
        """As ``/queue`` and ``/history`` show it."""
        return [self.number, self.prompt_id, self.graph, self.extra_data, self.outputs]

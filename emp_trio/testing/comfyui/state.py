"""State of the fake ComfyUI's process between prompts."""

from __future__ import annotations

from collections import Counter
from typing import Any

from emp_trio.testing.comfyui.behavior import Behavior, Say
from emp_trio.testing.comfyui.disk import Disk


class ServerState:
    """Lives as long as the server's process.

    Attributes:
        disk, behavior: of the server.
        executions: how often each prompt was begun.
        say: sends a message to a client, or to everybody.
        node: the node that runs.
        flags: feature flags by client id.
        cache: outputs of nodes by signature; None for a node that shows nothing.
        interrupted: the running prompt is to be interrupted.
    """

    def __init__(self, disk: Disk, behavior: Behavior, executions: Counter[str], say: Say) -> None:
        self.disk = disk
        self.behavior = behavior
        self.executions = executions
        self.say = say
        self.node: str | None = None
        self.flags: dict[str, dict[str, Any]] = {}
        self.cache: dict[str, dict[str, Any] | None] = {}
        self.interrupted = False

"""Parse the WebSocket messages of ComfyUI (ComfyUI reference 3). Pure.

Every message decodes to something: what is unknown, cut short or of the wrong type becomes :class:`Unknown`, and fields
that nothing here needs are passed over.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.protocols.parsing import Lenient, parse, parse_or_empty
from emp_trio.protocols.wire_json import decode_json

_HEADER: Final = 8  # bytes before the content of every binary frame


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The length of the queue, told to everybody; ``sid`` only in the first message of a socket."""

    queue_remaining: int | None
    sid: str | None = None


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The prompt has left the queue."""

    prompt_id: str


class Cached(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes whose results are reused; they send nothing else (4.8)."""

    prompt_id: str
    nodes: tuple[str, ...]


class Executing(msgspec.Struct, frozen=True, kw_only=True):
    """A node begins; without ``prompt_id`` it is what a server says after a reconnect (4.4)."""

    node: str
    prompt_id: str | None = None
    display_node: str | None = None


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """The end marker: now the history has the prompt (4.3)."""

    prompt_id: str


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A node's own progress; NaN, which Python's json writes, is read as None."""

    node: str
    value: float | None
    max: float | None
    prompt_id: str | None = None


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    """How far one node is; ``state`` is ``running`` or ``finished``."""

    state: str
    value: float | None
    max: float | None


class NodeStates(msgspec.Struct, frozen=True, kw_only=True):
    """Every node that has begun so far."""

    prompt_id: str
    nodes: dict[str, NodeState]


class Executed(msgspec.Struct, frozen=True, kw_only=True):
    """A node has something to show."""

    prompt_id: str
    node: str
    output: dict[str, Any] | None = None


class Succeeded(msgspec.Struct, frozen=True, kw_only=True):
    """All nodes are done. The history may not have the prompt yet (4.3)."""

    prompt_id: str


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """A node raised, or blocked its branch only (3.1): not the end of the prompt by itself."""

    prompt_id: str
    node_id: Lenient[str] = ""
    node_type: Lenient[str] = ""
    exception_type: Lenient[str] = ""
    exception_message: Lenient[str] = ""


class Interrupted(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody interrupted the prompt."""

    prompt_id: str
    node_id: Lenient[str] = ""
    node_type: Lenient[str] = ""


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """An image from a binary frame (3.3); only those with metadata say whose it is."""

    media_type: str
    data: bytes
    node: str | None = None
    prompt_id: str | None = None


class NodeText(msgspec.Struct, frozen=True, kw_only=True):
    """A text that a node shows while it runs (3.3)."""

    node: str
    text: str


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """The server's feature flags (3.2)."""

    flags: dict[str, Any]


class Unknown(msgspec.Struct, frozen=True, kw_only=True):
    """A message that is of no use; ``type`` is its own word for itself, ``why`` what is wrong with it, if anything."""

    type: str
    why: str = ""


Event: TypeAlias = (
    Status
    | Started
    | Cached
    | Executing
    | Ended
    | Step
    | NodeStates
    | Executed
    | Succeeded
    | Failed
    | Interrupted
    | Preview
    | NodeText
    | Features
    | Unknown
)


class _Message(msgspec.Struct):
    type: str
    data: Any = None


class _ExecInfo(msgspec.Struct):
    queue_remaining: int | None = None


class _StatusInfo(msgspec.Struct):
    exec_info: _ExecInfo = msgspec.field(default_factory=_ExecInfo)


class _Status(msgspec.Struct):
    status: _StatusInfo = msgspec.field(default_factory=_StatusInfo)
    sid: str | None = None


class _Executing(msgspec.Struct):
    node: str | None = None
    prompt_id: str | None = None
    display_node: str | None = None


class _Shown(msgspec.Struct):
    """What a binary frame says of its image."""

    image_type: Lenient[str] = ""
    node_id: Lenient[str] = ""
    prompt_id: Lenient[str] = ""


_PLAIN: Final[dict[str, type[msgspec.Struct]]] = {
    "execution_start": Started,
    "execution_cached": Cached,
    "progress": Step,
    "progress_state": NodeStates,
    "executed": Executed,
    "execution_success": Succeeded,
    "execution_error": Failed,
    "execution_interrupted": Interrupted,
}
"""Messages whose data has the fields of the event under the same names."""

_FORMATS: Final = {1: "image/jpeg", 2: "image/png"}


def decode(message: str | bytes) -> Event:
    """A message of the socket as an event. Raises nothing.

    Args:
        message: text, or a binary frame.
    """
    return _text(message) if isinstance(message, str) else _frame(message)


def decode_data(type: str, data: Any) -> Event:
    """The event of a message's ``type`` and ``data``; entries of a history hold the same pairs (2.2)."""
    try:
        return _event(type, data)
    except ServiceError as error:
        return Unknown(type=type, why=error.message)


def prompt_of(event: Event) -> str | None:
    """Id of the prompt that an event is about, or None for those that name none."""
    return getattr(event, "prompt_id", None)


def _text(message: str) -> Event:
    try:
        whole = parse(_Message, decode_json(message), "a message")
    except ServiceError as error:
        return Unknown(type="", why=error.message)
    return decode_data(whole.type, whole.data)


def _event(type: str, data: Any) -> Event:
    if (plain := _PLAIN.get(type)) is not None:
        return parse(plain, data, type)  # type: ignore[return-value]  # all of them are events
    match type:
        case "status":
            status = parse(_Status, data, type)
            return Status(queue_remaining=status.status.exec_info.queue_remaining, sid=status.sid)
        case "executing":
            at = parse(_Executing, data, type)
            if at.node is not None:
                return Executing(node=at.node, prompt_id=at.prompt_id, display_node=at.display_node)
            if at.prompt_id is None:
                return Unknown(type=type, why="the end of an unnamed prompt")
            return Ended(prompt_id=at.prompt_id)
        case "feature_flags" if isinstance(data, dict):
            return Features(flags=data)
        case _:
            return Unknown(type=type)


def _frame(frame: bytes) -> Event:
    kind = int.from_bytes(frame[:4], "big")
    if len(frame) < _HEADER:
        return Unknown(type=f"binary {kind}", why="the frame is cut short")
    number, rest = int.from_bytes(frame[4:_HEADER], "big"), frame[_HEADER:]
    match kind:
        case 1 | 2:
            return Preview(media_type=_FORMATS.get(number, "application/octet-stream"), data=rest)
        case 3 | 4 if len(rest) < number:
            return Unknown(type=f"binary {kind}", why="the frame is cut short")
        case 3:
            return NodeText(
                node=rest[:number].decode("utf-8", "replace"), text=rest[number:].decode("utf-8", "replace")
            )
        case 4:
            try:
                about = parse_or_empty(_Shown, decode_json(rest[:number]))
            except ServiceError as error:
                return Unknown(type="binary 4", why=error.message)
            return Preview(
                media_type=about.image_type or "application/octet-stream",
                data=rest[number:],
                node=about.node_id or None,
                prompt_id=about.prompt_id or None,
            )
        case _:
            return Unknown(type=f"binary {kind}")

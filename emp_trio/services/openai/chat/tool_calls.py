"""Calls of functions that a model wants made, put together from the pieces in which services send them. Pure.

Documented are an index in every piece, and the id, the type and the name in the first. Others send the same index for
all calls, or none, an id in every piece, the name again and again, and arguments as an object (real servers, section
2): an id begins a call, and so does a name after a call that has its arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.protocols.parsing import Lenient, parse_or_empty
from emp_trio.protocols.wire_json import decode_json

_ARGUMENTS: Final = {"function": "arguments", "custom": "input"}


class _Given(msgspec.Struct, frozen=True):
    """A call or a piece of one. Some number their calls in texts, and give numbers as ids."""

    index: Lenient[int | Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,9}$")] | None] = None
    id: Lenient[str | int | None] = None
    type: Lenient[str | None] = None
    name: Lenient[str | None] = None
    function: Lenient[dict[str, Any] | None] = None
    custom: Lenient[dict[str, Any] | None] = None


class _Piece(msgspec.Struct, frozen=True, kw_only=True):
    """What one piece says, wherever it says it."""

    index: int | None
    id: str
    type: str
    kind: str
    name: str
    arguments: Any
    others: Mapping[str, Any]
    inside: Mapping[str, Any]


class _Call(msgspec.Struct, kw_only=True):
    """A call so far; its arguments in the pieces in which they came."""

    id: str = ""
    type: str = "function"
    kind: str = "function"
    name: str = ""
    arguments: list[str] = []
    size: int = 0
    others: dict[str, Any] = {}
    inside: dict[str, Any] = {}

    def add(self, piece: _Piece) -> None:
        self.id = self.id or piece.id
        self.type = piece.type or self.type
        self.kind = piece.kind
        if piece.name != self.name:  # in pieces, or whole again and again
            self.name = piece.name if piece.name.startswith(self.name) else self.name + piece.name
        if isinstance(piece.arguments, str):
            if piece.arguments and not self.repeated(piece.arguments):
                self.arguments.append(piece.arguments)
                self.size += len(piece.arguments)
        elif piece.arguments is not None:
            self.arguments = [msgspec.json.encode(piece.arguments).decode()]
            self.size = len(self.arguments[0])
        self.others |= piece.others
        self.inside |= piece.inside

    def repeated(self, arguments: str) -> bool:
        """Whether these are the whole arguments once more."""
        return len(arguments) == self.size and arguments == "".join(self.arguments) and _is_whole(arguments)

    def shown(self) -> dict[str, Any]:
        inside = {"name": self.name, _ARGUMENTS[self.kind]: "".join(self.arguments)} | self.inside
        return {"id": self.id, "type": self.type, self.kind: inside} | self.others


class ToolCalls:
    """The calls of one choice, in the order in which they began."""

    def __init__(self, whole: Iterable[Mapping[str, Any]] = ()) -> None:
        self._calls: list[_Call] = []
        self._at: dict[int, _Call] = {}
        for given in whole:
            self._begin().add(_read(given))

    def __bool__(self) -> bool:
        return bool(self._calls)

    @property
    def calls(self) -> tuple[dict[str, Any], ...]:
        """The calls so far, in the documented form; the arguments of each are a text."""
        return tuple(call.shown() for call in self._calls)

    def add(self, given: Mapping[str, Any]) -> None:
        """Take a piece of a streamed call."""
        piece = _read(given)
        call = self._call(piece)
        if piece.index is not None:
            self._at[piece.index] = call
        call.add(piece)

    def _call(self, piece: _Piece) -> _Call:
        """The call that a piece belongs to."""
        known = next((call for call in self._calls if call.id == piece.id), None) if piece.id else None
        if known is not None:
            return known
        current = self._at.get(piece.index) if piece.index is not None else self._calls[-1] if self._calls else None
        if current is None or (piece.id and current.id) or _is_another(current, piece):
            return self._begin()
        return current

    def _begin(self) -> _Call:
        call = _Call(arguments=[], others={}, inside={})
        self._calls.append(call)
        return call


def _is_another(call: _Call, piece: _Piece) -> bool:
    """Whether a piece with nothing but its name to tell it by is of a later call."""
    if not piece.name or not call.arguments:
        return False
    if piece.name != call.name:
        return True
    begins = isinstance(piece.arguments, dict) or str(piece.arguments).lstrip().startswith("{")
    had = "".join(call.arguments)
    return begins and piece.arguments != had and _is_whole(had)


def _read(given: Mapping[str, Any]) -> _Piece:
    """A piece or a whole call; name and arguments stand in ``function``, in ``custom``, or in the call itself."""
    about = parse_or_empty(_Given, given)
    kind = "custom" if about.function is None and about.custom is not None else "function"
    inside = about.custom if kind == "custom" else about.function
    said: Mapping[str, Any] = given if inside is None else inside
    field = _ARGUMENTS[kind]
    outside = {"index", "id", "type", *_ARGUMENTS, *(("name", field) if inside is None else ())}
    return _Piece(
        index=None if about.index is None else int(about.index),
        id="" if about.id is None else str(about.id),
        type=about.type or "",
        kind=kind,
        name=parse_or_empty(_Given, said).name or "",
        arguments=said.get(field),
        others={key: value for key, value in given.items() if key not in outside and value is not None},
        inside={key: value for key, value in (inside or {}).items() if key not in ("name", field) and value},
    )


def _is_whole(text: str) -> bool:
    """Whether text is a JSON object."""
    if not text.lstrip().startswith("{") or not text.rstrip().endswith("}"):
        return False
    try:
        return isinstance(decode_json(text), dict)
    except ServiceError:
        return False

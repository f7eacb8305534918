"""Lines and answers of Ollama as they come (Ollama reference B3, B4). Pure."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec

from emp_trio.protocols.parsing import Lenient, NoObject

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Message(msgspec.Struct, frozen=True):
    """A message. ``content`` is a text, or parts as of other vendors; there are models that answer with images, one or
    several."""

    content: Any = None
    thinking: Lenient[str] = ""
    tool_calls: Any = None
    images: Lenient[list[Lenient[str]] | str | None] = None
    image: Lenient[list[Lenient[str]] | str | None] = None

    def all_images(self) -> list[str]:
        """Base64 of each image."""
        found = self.images or self.image or []
        return [found] if isinstance(found, str) else [text for text in found if text]


class Line(Message, frozen=True):
    """A line of ``/api/chat``, or one of ``/api/generate``, which has the members of a message itself."""

    response: Any = None
    message: Message | NoObject = None
    done: Any = None
    done_reason: Any = None
    error: Any = None


class Counts(msgspec.Struct, frozen=True):
    """What an answer has cost. What is zero is left out, so that what is missing, or is no count, is 0."""

    model: Lenient[str] = ""
    prompt_eval_count: Lenient[_Count] = 0
    eval_count: Lenient[_Count] = 0
    total_duration: Lenient[_Count] = 0
    load_duration: Lenient[_Count] = 0
    prompt_eval_duration: Lenient[_Count] = 0
    eval_duration: Lenient[_Count] = 0


class Model(msgspec.Struct, frozen=True):
    """A model; older servers and others give one name only."""

    name: Lenient[str] = ""
    model: Lenient[str] = ""


class Models(msgspec.Struct, frozen=True):
    """The answer of ``/api/tags``; entries that are none are left out."""

    models: Lenient[list[Lenient[Model]]] = []


class Version(msgspec.Struct, frozen=True):
    """The answer of ``/api/version``."""

    version: Any = None

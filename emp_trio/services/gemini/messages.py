"""Responses of both interfaces of Gemini (Gemini reference A4, A7). Pure.

Convert snake-case names first (:func:`emp_trio.services.gemini.wire.camel`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from emp_trio.protocols.parsing import Lenient

T = TypeVar("T")
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)] | None


class Rating(msgspec.Struct, frozen=True):
    """One of ``safetyRatings``."""

    category: Lenient[str] = ""
    blocked: Any = False


class Part(msgspec.Struct, frozen=True, rename="camel"):
    """A part of a content: words, or data of an image, or the address of a file; those go by many names inside."""

    text: Lenient[str] = ""
    thought: Lenient[bool] = False
    inline_data: Lenient[dict[str, Any]] = {}
    file_data: Lenient[dict[str, Any]] = {}


class Content(Part, frozen=True, rename="camel"):
    """Some parts, or one part, of gateways that leave the level between out."""

    parts: Lenient[list[Lenient[Part]] | Part | None] = None


class File(msgspec.Struct, frozen=True, rename="camel"):
    """What ``inline_data`` and ``file_data`` hold: base64, or an address."""

    data: Lenient[str] = ""
    file_uri: Lenient[str] = ""


class Candidate(msgspec.Struct, frozen=True, rename="camel"):
    """One answer. ``end`` is empty, null or missing in good ones of some gateways, and a number in those of others."""

    content: Lenient[list[Lenient[Content]] | Content] = []
    end: Any = msgspec.field(name="finishReason", default=None)
    finish_message: Lenient[str] = ""
    safety_ratings: Lenient[list[Lenient[Rating]]] = []

    @property
    def finish_reason(self) -> str:
        """Why it ended."""
        return "" if self.end is None else str(self.end)

    def parts(self) -> Iterator[Part]:
        """Its parts; thoughts are among them, and have images too."""
        for content in several(self.content):
            yield from (content,) if content.parts is None else several(content.parts)


class Feedback(msgspec.Struct, frozen=True, rename="camel"):
    """Why a prompt was refused."""

    block_reason: Any = None
    safety_ratings: Lenient[list[Lenient[Rating]]] = []


class Response(msgspec.Struct, frozen=True, rename="camel"):
    """A response of ``generateContent``; one candidate in place of a list counts as a list of one."""

    candidates: Lenient[list[Lenient[Candidate]] | Candidate] = []
    prompt_feedback: Lenient[Feedback] = Feedback()
    response_id: Lenient[str] = ""
    model_version: Lenient[str] = ""
    usage_metadata: Any = None


class Step(msgspec.Struct, frozen=True):
    """A step of an interaction; its parts stay as they are, as an image goes by many names in them."""

    type: Lenient[str] = ""
    content: Lenient[list[Lenient[dict[str, Any]]]] = []
    summary: Lenient[list[Lenient[dict[str, Any]]]] = []


class Interaction(msgspec.Struct, frozen=True):
    """An interaction; ``error`` and ``output_image`` are for those who read no list."""

    id: Lenient[str] = ""
    status: Lenient[str] = ""
    model: Lenient[str] = ""
    steps: Lenient[list[Lenient[Step]]] = []
    output_image: Lenient[dict[str, Any]] = {}
    errors: Any = None
    error: Any = None
    usage: Any = None

    def output(self) -> list[dict[str, Any]]:
        """The parts of what the model gave out."""
        return [part for step in self.steps if step.type == "model_output" for part in step.content]

    def thoughts(self) -> list[dict[str, Any]]:
        """The parts of what it thought."""
        return [part for step in self.steps if step.type == "thought" for part in step.summary + step.content]


class Usage(msgspec.Struct, frozen=True, rename="camel"):
    """Tokens in the words of either interface; where the service says nothing, nothing is guessed."""

    prompt_token_count: Lenient[_Count] = None
    candidates_token_count: Lenient[_Count] = None
    total_token_count: Lenient[_Count] = None
    cached_content_token_count: Lenient[_Count] = None
    thoughts_token_count: Lenient[_Count] = None
    input: Lenient[_Count] = msgspec.field(name="total_input_tokens", default=None)
    output: Lenient[_Count] = msgspec.field(name="total_output_tokens", default=None)
    total: Lenient[_Count] = msgspec.field(name="total_tokens", default=None)
    cached: Lenient[_Count] = msgspec.field(name="total_cached_tokens", default=None)
    thought: Lenient[_Count] = msgspec.field(name="total_thought_tokens", default=None)


def several(value: list[T] | T) -> list[T]:
    """The entries of a list; of one thing in place of a list, that."""
    return value if isinstance(value, list) else [value]

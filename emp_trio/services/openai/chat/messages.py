"""Chat completions and chunks as they come (OpenAI reference 10; servers of others: real servers, section 2). Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from emp_trio.protocols.parsing import Lenient, NoObject
from emp_trio.services.message_content import Words, read_content


class EndReason(msgspec.Struct, frozen=True):
    """Why a choice ended, as an object."""

    type: Lenient[str] = ""
    reason: Lenient[str] = ""


class Message(msgspec.Struct, frozen=True):
    """A message, or a piece of one. What it says is a text, a part or a list of parts, under one of several names."""

    content: Any = None
    refusal: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: Any = None
    function_call: Lenient[dict[str, Any] | None] = None

    def words(self) -> Words:
        """What it says."""
        words = read_content(self.content)
        if self.refusal:
            words.refusal += read_content(self.refusal).text
        for reasoning in (self.reasoning_content, self.reasoning):
            if reasoning and not words.reasoning:
                words.reasoning = read_content(reasoning).text
        return words


class GivenChoice(msgspec.Struct, frozen=True):
    """An entry of ``choices``, of a whole completion or of a chunk; whether a member is there counts as well."""

    index: Lenient[int | None] = None
    delta: Message | NoObject | msgspec.UnsetType = msgspec.UNSET
    message: Message | NoObject | msgspec.UnsetType = msgspec.UNSET
    text: Any = None
    finish_reason: Lenient[str | EndReason | None] = None
    logprobs: Any = None
    error: Any = None


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A completion or a chunk of one. One choice in place of a list counts as a list of one; services repeat the other
    members in each chunk, or leave them out, or null, in most."""

    id: Lenient[str | None] = None
    model: Lenient[str | None] = None
    usage: Lenient[dict[str, Any] | None] = None
    object: Any = None
    choices: Lenient[list[Lenient[GivenChoice]] | GivenChoice | None] = None

    def several(self) -> list[GivenChoice]:
        """Its choices."""
        return [self.choices] if isinstance(self.choices, GivenChoice) else self.choices or []

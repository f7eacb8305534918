"""One choice of a chat completion, put together from deltas or read from a whole message. Pure.

Shapes: OpenAI reference 10, and those of servers of others (real servers, section 2)."""

from __future__ import annotations

from typing import Any

import msgspec

from emp_trio.protocols.wire_json import join_halves
from emp_trio.secrets import excerpt
from emp_trio.services.finish_reasons import end_of
from emp_trio.services.openai.chat.messages import EndReason, GivenChoice, Message
from emp_trio.services.openai.chat.tool_calls import ToolCalls


class Choice(msgspec.Struct, kw_only=True):
    """One choice; its words in the pieces in which they came.

    Attributes:
        text, refusal, reasoning: of the answer; with which the model declines; what it thought.
        unknown: content that is not understood.
        calls: of functions.
        logprobs: as the service sends them.
        finish_reason: why it ended; empty where the service says so, None where it says nothing.
        error: what the service says went wrong with it.
        whole: it came in one piece.
    """

    text: list[str]
    refusal: list[str]
    reasoning: list[str]
    unknown: list[Any]
    calls: ToolCalls
    logprobs: Any = None
    finish_reason: str | None = None
    error: Any = None
    whole: bool = False

    @classmethod
    def begin(cls, *, whole: bool = False) -> Choice:
        """A choice of which nothing has come yet."""
        return cls(text=[], refusal=[], reasoning=[], unknown=[], calls=ToolCalls(), whole=whole)

    def add(self, given: GivenChoice, *, piece: bool = False) -> str:
        """Take what an entry of ``choices`` has, as a ``delta`` or as a whole ``message``; the words that it adds.

        Args:
            piece: it stands in a chunk of a stream. Some services put the next piece into ``message`` there; it is a
                whole one only where it begins with all that has come.
        """
        whole = given.message is not msgspec.UNSET and (not given.delta or given.delta == Message())
        said = given.message if whole else given.text if given.delta is msgspec.UNSET else given.delta
        message = said if isinstance(said, Message) else Message(content=said)
        words = message.words()
        if whole and piece:
            whole = words.text.startswith("".join(self.text))
        if whole and (words.text or message.tool_calls):  # all of it, also of what has come in pieces
            self.text, self.refusal, self.reasoning, self.calls = [], [], [], ToolCalls()
        for pieces, more in (
            (self.text, words.text),
            (self.refusal, words.refusal),
            (self.reasoning, words.reasoning),
        ):
            if more:
                pieces.append(more)
        self.unknown += words.unknown
        self._add_calls(message, whole=whole)
        self.logprobs = _logprobs(self.logprobs, given.logprobs)
        self.error = given.error or self.error
        reason = given.finish_reason
        if isinstance(reason, EndReason):
            reason = reason.type or reason.reason or None
        if reason is not None:
            self.finish_reason = reason or self.finish_reason or ""
        return words.text

    def _add_calls(self, message: Message, *, whole: bool) -> None:
        given = message.tool_calls
        calls = given if isinstance(given, list) else [given] if given else []
        known = [call for call in calls if isinstance(call, dict)]
        self.unknown += [call for call in calls if not isinstance(call, dict)]
        if whole and known:
            self.calls = ToolCalls(known)
        elif not whole:
            for call in known:
                self.calls.add(call)
        if message.function_call:  # the form before tool_calls
            self.calls.add({"function": message.function_call})

    def shown(self) -> dict[str, Any]:
        """The choice as it stands in a result."""
        shown: dict[str, Any] = {"text": "".join(self.text), "finish_reason": self.finish_reason}
        if refused := "".join(self.refusal):
            shown["refusal"] = refused
        if self.calls:
            shown["tool_calls"] = list(self.calls.calls)
        if self.logprobs is not None:
            shown["logprobs"] = self.logprobs
        found: dict[str, Any] = join_halves(shown)
        return found

    @property
    def in_hand(self) -> bool:
        """Whether there is something in it that can be used."""
        return bool(self.calls) or any(piece.strip() for piece in self.text)

    @property
    def declined(self) -> bool:
        """Whether the service declined it. The words of other vendors for that count where there is nothing else."""
        documented = self.finish_reason == "content_filter"
        return documented or any(self.refusal) or (end_of(self.finish_reason) == "declined" and not self.in_hand)

    @property
    def truncated(self) -> bool:
        """Whether it did not come to a good end. A whole answer that tells none has come to its own."""
        return end_of(self.finish_reason) != "good" and not (self.whole and self.finish_reason is None)


def kind_of(part: Any) -> str:
    """The type of a part of content, or of its value where it has none."""
    kind = part.get("type") if isinstance(part, dict) else None
    return excerpt(kind, 100) if isinstance(kind, str) and kind else type(part).__name__


def _logprobs(had: Any, more: Any) -> Any:
    """Log probabilities of a choice, of all its pieces."""
    if not isinstance(had, dict) or not isinstance(more, dict):
        return more if more is not None else had
    for name, value in more.items():
        if isinstance(value, list) and isinstance(had.get(name), list):
            had[name] += value
        elif value is not None or name not in had:
            had[name] = value
    return had

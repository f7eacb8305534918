"""Lines and answers of Ollama as what a job wants to know of them (Ollama reference B3, B4). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.protocols.http.errors import bad_answer
from emp_trio.protocols.parsing import parse, parse_or_empty
from emp_trio.protocols.wire_json import excerpt, join_halves
from emp_trio.services.error_shapes import error_in, words_of
from emp_trio.services.finish_reasons import end_of
from emp_trio.services.message_content import read_content
from emp_trio.services.ollama.errors import error_line
from emp_trio.services.ollama.messages import Counts, Line, Message, Models
from emp_trio.services.redaction import excerpt_of

_DONE: Final = (True, "true", "True")
_MEMBERS: Final = frozenset(("response", "message", "done", "done_reason", "thinking", "image", "images"))
_DURATIONS: Final = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


LONGEST: Final = 2**20
"""Bytes of an answer, with its thoughts and tool calls. It stands in the result, and results travel through Redis."""


class Words:
    """An answer in words while it comes, line by line, of either ``/api/generate`` or ``/api/chat``.

    Attributes:
        pieces: lines with something in them so far.
        images: base64 of images, of models that make some.
        strange: the first line that says nothing of the kind, or None.
        thinking: whether nothing but thoughts has come so far.
    """

    def __init__(self) -> None:
        self.pieces = 0
        self.images: list[str] = []
        self._size = 0
        self._text: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[Any] = []
        self._unknown: list[Any] = []
        self._last: Mapping[str, Any] = {}
        self._broken_off: ServiceError | None = None
        self.strange: Any = None

    @property
    def in_hand(self) -> bool:
        """Whether something has come that can be used, and must not be paid for again."""
        return bool(self._calls or self.images) or any(piece.strip() for piece in self._text)

    @property
    def thinking(self) -> bool:
        """Whether the model is still thinking."""
        return bool(self._thoughts) and not self._text

    def feed(self, line: Any) -> None:
        """Take the next line; half of a character may be in it, and the other half in the next.

        Raises:
            ServiceError: it is an error and nothing is in hand that could be kept, or no object; or the answer is
                longer than ``LONGEST``.
        """
        if isinstance(line, list) and line and all(isinstance(item, dict) for item in line):
            for item in line:
                self.feed(item)
            return
        if not isinstance(line, dict):
            raise bad_answer(
                f"a line of the answer is not an object: {_quoted(line)}", reason="invalid_response_format"
            )
        whole = parse_or_empty(Line, line)
        error = _error_of(whole, line)
        part = whole.message if isinstance(whole.message, Message) else whole
        other = whole.message if part is whole and error is None else None
        said = read_content(part.content or whole.response or other)
        text, thought = said.text, part.thinking or said.reasoning
        self._unknown = self._unknown or said.unknown
        calls = join_halves(part.tool_calls)
        size = len(f"{text}{thought}".encode("utf-8", "surrogatepass"))
        self._size += size + len(msgspec.json.encode(calls) if calls else b"")
        if self._size > LONGEST:
            raise bad_answer(
                f"the model wrote more than {LONGEST} bytes: set max_tokens (num_predict)",
                reason="invalid_response_format",
                retry=False,
            )
        if text:
            self._text.append(text)
        if thought:
            self._thoughts.append(thought)
        if isinstance(calls, list):
            self._calls += calls
        images = part.all_images() + (whole.all_images() if part is not whole else [])
        self.images += images
        self.pieces += bool(text or thought or calls or images)
        if self.strange is None and not line.keys() & _MEMBERS:
            self.strange = line
        if error is not None:
            self._broken_off = error_line({"error": error})
            if not self.in_hand:
                raise self._broken_off
        self._last = line

    def finish(self) -> dict[str, Any]:
        """The whole answer, as ``data`` of a result: the last line has come.

        Raises:
            ServiceError: (response_error) there is neither text nor a tool call nor an image.
        """
        text, reason = join_halves("".join(self._text)), self._last.get("done_reason")
        reason = reason if isinstance(reason, str) else ""
        thoughts = join_halves("".join(self._thoughts))
        truncated = "done_reason" in self._last and end_of(reason) != "good"  # older versions have none
        if self._broken_off is not None:
            truncated, reason = True, reason or self._broken_off.code or "error"
        if self._unknown and not (text.strip() or self._calls or self.images):
            raise bad_answer(
                f"the answer has content of a kind that is not understood: {_quoted(self._unknown[0])}",
                reason="invalid_response_format",
                retry=False,
            )
        if not text.strip() and not self._calls and not self.images:
            raise _nothing(truncated=truncated, thoughts=bool(thoughts))
        message = {"role": "assistant", "content": text}
        data: dict[str, Any] = {
            "content_type": "text",
            "text": text,
            "text_content": text,
            "model_used": parse_or_empty(Counts, self._last).model,
            "done_reason": reason or None,
            "usage": usage(self._last),
            "timing": timing(self._last),
            "message": message | ({"tool_calls": self._calls} if self._calls else {}),
        }
        if thoughts:
            data["thinking"] = thoughts
        if self._calls:
            data["tool_calls"] = self._calls
        if truncated:
            data["truncated"] = True
        if self._broken_off is not None:
            data["warnings"] = [f"{self._broken_off.message}; what had come before is kept"]
        return data


def ends(line: Any) -> bool:
    """Whether a line of an answer in words is its last one."""
    if isinstance(line, list):
        return any(ends(item) for item in line)
    said = parse_or_empty(Line, line)
    return said.done in _DONE or bool(said.done_reason) or _error_of(said, line) is not None


def read_embeddings(answer: Any, *, count: int) -> list[list[float]]:
    """The vectors of an answer of ``/api/embed``, one for each input.

    They are taken from ``embeddings``, from the ``embedding`` of the older call, or from ``data`` as OpenAI's API has
    it, whichever is there: there are servers that answer each other's calls.

    Raises:
        ServiceError: (response_error) there are none, not as many as inputs, or they are no vectors of one length; says
            which.
    """
    place, found = _vectors_in(answer)
    if found is None:
        raise bad_answer(_without_vectors(answer), reason="missing_expected_data")
    vectors = parse(list[list[float]], found, f"{place!r} of the answer is no list of lists of numbers")
    if len(vectors) != count or not vectors[0] or len({len(vector) for vector in vectors}) > 1:
        lengths = sorted({len(vector) for vector in vectors})
        raise bad_answer(
            f"{count} embeddings of one length were asked for, {len(vectors)} of the lengths {lengths} came",
            reason="missing_expected_data",
        )
    return vectors


def _vectors_in(answer: Any) -> tuple[str, Any]:
    """The name of the member that has vectors, and those as a list of lists; ("", None) where nothing has."""
    said = answer if isinstance(answer, dict) else {}
    for name in ("embeddings", "embedding"):
        found = said.get(name)
        if found:
            flat = isinstance(found, list) and not isinstance(found[0], list) and found[0] is not None
            return name, [found] if flat else found
    data = said.get("data")
    if isinstance(data, list) and data and all(isinstance(entry, dict) and entry.get("embedding") for entry in data):
        return "data", [entry["embedding"] for entry in data]
    return "", None


def _without_vectors(answer: Any) -> str:
    if not isinstance(answer, dict):
        return f"the answer is {type(answer).__name__}, not an object with embeddings"
    kinds = [f"{name!r} is {_kind(answer[name])}" for name in ("embeddings", "embedding", "data") if name in answer]
    return f"the answer has no embeddings: {' and '.join(kinds) or 'it has no such member'}"


def _kind(value: Any) -> str:
    return "null" if value is None else "empty" if value in ([], {}, "") else type(value).__name__


def model_names(answer: Any) -> list[str]:
    """Names of the installed models in an answer of ``/api/tags``."""
    return [name for entry in parse_or_empty(Models, answer).models if (name := entry.name or entry.model)]


def usage(said: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens in the project's shape."""
    counts = parse_or_empty(Counts, said)
    return {
        "input_tokens": counts.prompt_eval_count,
        "output_tokens": counts.eval_count,
        "total_tokens": counts.prompt_eval_count + counts.eval_count,
        "model": counts.model or None,
    }


def timing(said: Mapping[str, Any]) -> dict[str, float]:
    """Durations in milliseconds; Ollama says them in nanoseconds, and leaves out what took no time."""
    counts = parse_or_empty(Counts, said)
    return {f"{name}_ms": round(getattr(counts, name) / 1e6, 3) for name in _DURATIONS if name in said}


def strange_answer(line: Any) -> ServiceError:
    """The error for an answer of which no line says anything of the kind."""
    return bad_answer(
        f"the answer is nothing of Ollama's: {_quoted(line)}", reason="unexpected_content_type", retry=False
    )


def _error_of(said: Line, line: Any) -> Any:
    """The error that a line tells of, in Ollama's shape or in one of a gateway's; None where it tells of none. Some
    write an empty one into every line."""
    if said.error:
        return said.error
    names = line.keys() if isinstance(line, dict) else set()
    if "error" in names and not names & _MEMBERS:
        return "no reason given"
    if names & _MEMBERS - {"message"} or isinstance(said.message, Message):
        return None
    stated = error_in(line)
    return None if stated is None else {"message": words_of(stated) or "no reason given"}


def _nothing(*, truncated: bool, thoughts: bool) -> ServiceError:
    if truncated:
        return ServiceError(
            f"the model reached its limit {'while it was thinking' if thoughts else 'before it said anything'}: raise "
            "max_tokens (num_predict)" + (", or turn thinking off" if thoughts else ""),
            type="response_error",
            reason="missing_expected_data",
            retry=False,
        )
    return ServiceError(
        "the model ended with neither words nor a tool call",
        type="response_error",
        reason="missing_expected_data",
        maybe_started=True,
    )


def _quoted(value: Any) -> str:
    return excerpt(value if isinstance(value, str) else excerpt_of(value, 400))

"""The words in a chat message, in whichever of the shapes that services give them. Pure.

OpenAI documents a text; others send a list of parts, in deltas as well as in whole answers (real servers, section 2).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

_TEXT: Final = frozenset(("text", "output_text", "input_text", ""))
_REASONING: Final = frozenset(("reasoning", "reasoning_content", "reasoning_text", "thinking", "redacted_thinking"))
_HOLDERS: Final = ("text", "value", "content", "parts")


class Words(msgspec.Struct, kw_only=True):
    """What the content of a message, or of a piece of one, says.

    Attributes:
        text: the answer.
        refusal: the words with which the model declines.
        reasoning: what the model thought; no part of the answer.
        unknown: parts that are nothing of the kind, as they came.
    """

    text: str = ""
    refusal: str = ""
    reasoning: str = ""
    unknown: list[Any] = []


def read_content(content: Any) -> Words:
    """The words in ``content``: a text, a part, a list of either, or None for nothing."""
    words = Words(unknown=[])
    _add(words, content, "text")
    return words


def _add(words: Words, content: Any, field: str) -> None:
    match content:
        case None:
            return
        case str():
            setattr(words, field, getattr(words, field) + content)
        case list():
            for part in content:
                _add(words, part, field)
        case dict():
            _add_part(words, content, field)
        case _:
            words.unknown.append(content)


def _add_part(words: Words, part: dict[str, Any], field: str) -> None:
    kind = part.get("type")
    kind = kind if isinstance(kind, str) else ""
    if kind == "refusal":
        _add(words, part.get("refusal", part.get("text")), "refusal")
    elif kind in _REASONING:
        _add(words, next((part[name] for name in (kind, *_HOLDERS, "summary") if name in part), None), "reasoning")
    elif kind in _TEXT and (holder := next((name for name in _HOLDERS if name in part), None)) is not None:
        _add(words, part[holder], field)
    else:
        words.unknown.append(part)

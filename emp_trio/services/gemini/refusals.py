"""Gemini's words for a refusal, and the fleet's reasons for them (Gemini reference A5; queue protocol 5.6). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from emp_trio.services.gemini.messages import Rating

_REASONS: Final = {
    "SAFETY": "safety_filter",
    "IMAGE_SAFETY": "safety_filter",
    "RECITATION": "copyright_blocker",
    "IMAGE_RECITATION": "copyright_blocker",
    "SPII": "personal_info",
    "BLOCKLIST": "policy_violation",
    "PROHIBITED_CONTENT": "policy_violation",
    "IMAGE_PROHIBITED_CONTENT": "policy_violation",
    "LANGUAGE": "policy_violation",
    "ESCALATION": "policy_violation",
}
_CATEGORIES: Final = {
    "HARM_CATEGORY_HATE_SPEECH": "hate_speech",
    "HARM_CATEGORY_HARASSMENT": "hate_speech",
    "HARM_CATEGORY_SEXUALLY_EXPLICIT": "nsfw_content",
    "HARM_CATEGORY_DANGEROUS_CONTENT": "violence_detected",
}


def refusal_reason(word: str, ratings: Iterable[Rating] = ()) -> str | None:
    """The reason of a refusal, or None where the word is none.

    Args:
        word: ``finishReason``, or the code of an error.
        ratings: the category that was blocked says more than ``SAFETY``.
    """
    reason = _REASONS.get(word.upper())
    if reason != "safety_filter":
        return reason
    return next((_CATEGORIES[r.category] for r in ratings if r.blocked and r.category in _CATEGORIES), reason)

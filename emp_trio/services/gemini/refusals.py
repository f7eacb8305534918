"""Gemini's words for a refusal, and the fleet's reasons for them (Gemini reference A5; queue protocol 5.6). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

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


def refusal_reason(word: str, ratings: Iterable[Any] = ()) -> str | None:
    """The reason of a refusal, or None where the word is none.

    Args:
        word: ``finishReason``, or the code of an error.
        ratings: ``safetyRatings``; the category that was blocked says more than ``SAFETY``.
    """
    reason = _REASONS.get(word.upper())
    if reason != "safety_filter":
        return reason
    blocked = [rating.get("category") for rating in ratings if isinstance(rating, dict) and rating.get("blocked")]
    return next((_CATEGORIES[word] for word in map(str, blocked) if word in _CATEGORIES), reason)

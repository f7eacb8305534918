"""Map the finish reasons of OpenAI and other vendors to outcomes. Pure.

``stop``, ``length``, ``tool_calls``, ``function_call`` and ``content_filter`` are documented (OpenAI reference 10); the
others are what servers of others say (real servers, section 2). What is not in the table is no good end.
"""

from __future__ import annotations

from typing import Final, Literal

End = Literal["good", "limit", "declined", "bad"]

_GOOD: Final = (
    "stop stop_sequence stop_token stop_string eos eos_token end_of_text end_turn end complete completed finished done "
    "tool_calls tool_call tool_use function_call"
).split()
_LIMIT: Final = "length max_tokens max_length max_output_tokens max_completion_tokens model_length".split()
_DECLINED: Final = "content_filter refusal safety sensitive prohibited_content blocklist recitation".split()

ENDS: Final[dict[str, End]] = {
    **dict.fromkeys(_GOOD, "good"),
    **dict.fromkeys(_LIMIT, "limit"),
    **dict.fromkeys(_DECLINED, "declined"),
}
"""What each known word means: a good end; the limit of tokens; the service's policy."""


def end_of(word: str | None) -> End:
    """What an end means; ``bad`` for a word that is not known, and for none."""
    return ENDS.get((word or "").strip().lower(), "bad")

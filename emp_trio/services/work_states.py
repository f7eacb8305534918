"""Default names of the states of background work, for services without their own in the settings. Pure.

The documented words are in the OpenAI reference (4.3) and the Gemini reference (A5); the others are those of gateways
and servers that speak the same language, in any case of letters.
"""

from __future__ import annotations

from typing import Any, Final, Literal

Phase = Literal["done", "failed", "cancelled", "expired", "stopped", "running", "unknown"]

_DONE: Final = "completed complete succeeded success successful done finished".split()
_FAILED: Final = "failed failure error errored".split()
_CANCELLED: Final = "cancelled canceled".split()
_EXPIRED: Final = "expired timed_out timeout aborted".split()
_STOPPED: Final = "incomplete budget_exceeded requires_action requires_continuation".split()
_RUNNING: Final = (
    "queued in_progress in_queue pending waiting scheduled created submitted accepted starting started running "
    "processing generating streaming cancelling canceling"
).split()

_PHASES: Final[dict[str, Phase]] = {
    **dict.fromkeys(_DONE, "done"),
    **dict.fromkeys(_FAILED, "failed"),
    **dict.fromkeys(_CANCELLED, "cancelled"),
    **dict.fromkeys(_EXPIRED, "expired"),
    **dict.fromkeys(_STOPPED, "stopped"),
    **dict.fromkeys(_RUNNING, "running"),
}


def phase_of(status: Any) -> Phase:
    """What a status means: the work is done; it has failed, was cancelled, or has run out of time; it was stopped
    before its end; it goes on; or nobody knows, of other words and of what is none."""
    if not isinstance(status, str):
        return "unknown"
    return _PHASES.get(status.strip().casefold().replace("-", "_").replace(" ", "_"), "unknown")

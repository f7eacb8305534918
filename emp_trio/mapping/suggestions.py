"""Suggest names for misspelt variables, fields and worker types. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from itertools import islice
from typing import Final

_ALIKE: Final = 0.75  # minimum similarity of a suggestion
_LONGEST: Final = 80  # maximum length of names compared: the comparison is quadratic

_MOST: Final = 1000  # maximum number of candidates compared


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate most similar to ``name``, or None if none is close.

    A name with one word more or less wins over a similar spelling: for ``OLLAMA_PORT`` the result is
    ``OLLAMA_BASE_PORT``, not ``OLLAMA_HOST``.
    """
    if not 0 < len(name) <= _LONGEST:
        return None
    scored = ((_likeness(name, c), c) for c in islice(candidates, _MOST) if c != name and 0 < len(c) <= _LONGEST)
    best = max(scored, key=lambda pair: (pair[0], pair[1]), default=(0.0, ""))
    return best[1] if best[0] >= _ALIKE else None


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return a hint with the nearest candidate, or "" if none is close."""
    candidate = nearest(name, candidates)
    return f"did you mean {candidate}?" if candidate else ""


def _likeness(name: str, candidate: str) -> float:
    ours, theirs = (text.lower().replace("-", "_").strip("_") for text in (name, candidate))
    if ours == theirs:
        return 3.0
    our_words, their_words = set(ours.split("_")), set(theirs.split("_"))
    shared = len(our_words & their_words)
    if shared >= 2 and (our_words <= their_words or their_words <= our_words):
        return 1.0 + shared / max(len(our_words), len(their_words))
    matcher = SequenceMatcher(None, ours, theirs)
    return matcher.ratio() if matcher.quick_ratio() >= _ALIKE else 0.0

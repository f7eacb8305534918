"""The name somebody probably meant: hints for misspelt variables, fields, worker types. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from itertools import islice
from typing import Final

_ALIKE: Final = 0.75  # least similarity of a suggestion
_LONGEST: Final = 80  # longer names are not compared: comparing takes time in the square of the length

_MOST: Final = 1000  # candidates looked at


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate most like ``name``, or None when none is close.

    The same words with one more or one less between them beat a similar spelling: for ``OLLAMA_PORT`` the answer
    is ``OLLAMA_BASE_PORT`` rather than ``OLLAMA_HOST``.
    """
    if not 0 < len(name) <= _LONGEST:
        return None
    scored = ((_likeness(name, c), c) for c in islice(candidates, _MOST) if c != name and 0 < len(c) <= _LONGEST)
    best = max(scored, key=lambda pair: (pair[0], pair[1]), default=(0.0, ""))
    return best[1] if best[0] >= _ALIKE else None


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """A hint that names the nearest candidate, or the empty string."""
    found = nearest(name, candidates)
    return f"did you mean {found}?" if found else ""


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

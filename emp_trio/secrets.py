"""Secrets are a type: a value that can be used but not shown, and the means to take known secrets out of text."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

MASK: Final = "***"

# Shapes that are secret wherever they appear: vendor keys, bearer and basic credentials, passwords in URLs, Azure
# account keys and signed-URL parameters.
_PATTERNS: Final = (
    (re.compile(r"\bsk-[A-Za-z0-9_-]{8,}"), "sk-" + MASK),
    (re.compile(r"\bAIza[A-Za-z0-9_-]{16,}"), "AIza" + MASK),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 " + MASK),
    (re.compile(r"(?<=://)([^/\s:@]*):[^/\s@]+@"), r"\1:" + MASK + "@"),
    (re.compile(r"(?i)(AccountKey|SharedAccessSignature)=[^;\s\"']+"), r"\1=" + MASK),
    (
        re.compile(r"(?i)([?&](?:sig|signature|x-amz-signature|x-goog-signature|token|api_key|key)=)[^&\s\"']+"),
        r"\1" + MASK,
    ),
)
# Quick look for anything that could match one of them: nearly all texts have nothing of the kind.
_SUSPECT: Final = re.compile(
    r"(?i)sk-|aiza|bearer|basic|://|accountkey|sharedaccess|[?&](?:sig|x-amz|x-goog|token|api_key|key)"
)
_SHORTEST: Final = 4  # a shorter secret would blank out ordinary words


class Secret:
    """A string that never shows itself: ``str``, ``repr`` and formatting give ``***``; only :meth:`reveal` shows it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value, for the one place that sends it to its service."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("Secret", self._value))

    def __reduce__(self) -> Any:
        raise TypeError("a Secret is not pickled: pass it by reference or reveal it where it is used")


class Redactor:
    """Takes secrets out of text: the ones it was told of, and every shape known to be secret.

    Args:
        known: secrets whose very text must not appear; those under four characters are left out.
    """

    def __init__(self, known: Iterable[Secret] = ()) -> None:
        self._known: Counter[str] = Counter()
        self.add(*known)

    def add(self, *secrets: Secret) -> None:
        """Learn more secrets, for example the credentials of one job's ``ctx``."""
        self._known.update(_forms(secrets))

    def forget(self, *secrets: Secret) -> None:
        """Take back one :meth:`add` of each."""
        self._known -= Counter(_forms(secrets))

    def text(self, text: str) -> str:
        """``text`` with every secret replaced by ``***``."""
        text = self.known(text)
        if not _SUSPECT.search(text):
            return text
        for pattern, mask in _PATTERNS:
            text = pattern.sub(mask, text)
        return text

    def known(self, text: str) -> str:
        """``text`` without the secrets that this redactor was told of; shapes that look secret stay (signed URLs)."""
        for value in sorted(self._known, key=len, reverse=True):
            text = text.replace(value, MASK)
        return text

    def known_in(self, value: Any) -> Any:
        """A copy of JSON-like ``value`` in which every text but for keys has gone through :meth:`known`."""
        match value:
            case str():
                return self.known(value)
            case dict():
                return {k: self.known_in(v) for k, v in value.items()}
            case list() | tuple():
                return [self.known_in(v) for v in value]
            case _:
                return value

    def data(self, value: Any) -> Any:
        """A copy of JSON-like ``value`` in which every string has gone through :meth:`text`; Secrets become ``***``."""
        match value:
            case str():
                return self.text(value)
            case Secret():
                return MASK
            case dict():
                return {self.text(k) if isinstance(k, str) else k: self.data(v) for k, v in value.items()}
            case list() | tuple():
                return [self.data(v) for v in value]
            case _:
                return value


def _forms(secrets: Iterable[Secret]) -> Iterator[str]:
    """What to look for: each secret as it is, and as it stands in JSON where that is different."""
    for secret in secrets:
        value = secret.reveal()
        if len(value) >= _SHORTEST:
            yield from {value, json.dumps(value, ensure_ascii=False)[1:-1]}

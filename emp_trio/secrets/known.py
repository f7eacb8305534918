"""Set of known secrets, and the search for all their forms in text."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from emp_trio.secrets.escapes import WIDEST, Span, escapes_for, in_original, merged, readings, without_cut_escape
from emp_trio.secrets.forms import LONGEST, SHORTEST, forms, parts_of
from emp_trio.secrets.secret import MASK, Secret

_LEAST_OF_A_NAME: Final = 8  # minimum characters of a secret to be masked in names that are plain words
_SCHEME: Final = re.compile(r"(?i:bearer|basic|token|apikey|api-key|key|jwt) +(\S{6,})")


class KnownSecrets:
    """Multiset of secrets, with the strings to search for."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._plain: tuple[str, ...] = ()
        self._marked: dict[str, tuple[str, ...]] = {}
        self._probes: tuple[tuple[str, str, int], ...] = ()
        self._least = sys.maxsize  # minimum length of a text that can contain any of them
        self._unescaped: tuple[str, ...] = ()  # searched for in decoded text
        self._escapes: tuple[str, ...] = ()  # a text without any of these contains no escaped secret
        self.longest = 0

    def add(self, secrets: Iterable[Secret]) -> None:
        """Search for ``secrets`` from now on."""
        values = _values(secrets)
        new = any(value not in self._counts for value in values)
        self._counts.update(values)
        if new:
            self._learn()

    def forget(self, secrets: Iterable[Secret]) -> None:
        """Undo one :meth:`add` of each secret."""
        before = len(self._counts)
        self._counts -= Counter(_values(secrets))
        if len(self._counts) != before:
            self._learn()

    def _learn(self) -> None:
        found = {value: forms(value) for value in sorted(self._counts, key=len, reverse=True)}
        marked: dict[str, list[str]] = {}
        for form in found.values():
            for mark, texts in form.marked:
                marked.setdefault(mark, []).extend(texts)
        # Replaced at once, because other threads may be searching.
        plain = dict.fromkeys(text for form in found.values() for text in form.plain)
        self._plain = tuple(sorted(plain, key=len, reverse=True))
        self._marked = {mark: tuple(sorted(texts, key=len, reverse=True)) for mark, texts in marked.items()}
        self._probes = tuple((value, *probe) for value, form in found.items() for probe in form.probes)
        every = (self._plain, *self._marked.values(), (probe for _, probe, _ in self._probes))
        self._least = min((len(text) for texts in every for text in texts), default=sys.maxsize)
        self._escapes = escapes_for(self._counts)
        self._unescaped = (*self._plain, *(value.replace(" ", "+") for value in found if " " in value))
        self.longest = max(
            (len(text) for texts in (self._counts, self._plain, *self._marked.values()) for text in texts), default=0
        )
        self.longest = max([self.longest, *(WIDEST * min(len(value), LONGEST) for value in self._counts)])

    def without(self, text: str) -> str:
        """Return ``text`` with every form of every secret masked."""
        if len(text) < self._least:  # always true without secrets
            return text
        for form in self._plain:
            if form in text:
                text = text.replace(form, MASK)
        for mark, forms_ in self._marked.items():
            if mark in text:
                for form in forms_:
                    text = text.replace(form, MASK)
        if any(mark in text for mark in self._escapes):
            text = self._without_escaped(text)
        for value, probe, place in self._probes:
            if probe in text:
                text = _cut_out(text, parts_of(value, text, probe, place))
        return text

    def _without_escaped(self, text: str) -> str:
        """Return ``text`` without secrets that appear only after decoding."""
        found: list[Span] = []
        for reading, before in readings(text):
            if spans := [*self._spans(reading)]:
                found += in_original(before, spans)
        return _cut_out(text, iter(merged(found))) if found else text

    def _spans(self, text: str) -> Iterator[Span]:
        for form in self._unescaped:
            at = text.find(form)
            while at >= 0:
                yield at, at + len(form)
                at = text.find(form, at + len(form))
        for value, probe, place in self._probes:
            if probe in text:
                yield from parts_of(value, text, probe, place)

    def without_beginning(self, text: str) -> str:
        """Remove the beginning of a secret from the end of a shortened text."""
        forms_ = (*self._counts, *self._plain, *(form for marked in self._marked.values() for form in marked))
        whole = without_cut_escape(text)
        starts = [len(t) - length for t in (text, whole) if (length := _beginning(t, forms_))]
        tail = whole[-self.longest - WIDEST :]
        for reading, before in readings(tail):
            if length := _beginning(reading, (*self._counts, *self._unescaped), least=1):
                start = in_original(before, [(len(reading) - length, len(reading))])[0][0]
                starts.append(len(whole) - len(tail) + start)
        return text[: min(starts)] + MASK if starts else whole

    def in_name(self, name: str) -> str:
        """Mask secrets in the name of a member. Plain words keep short secrets: our own names are such words."""
        masked = self.without(name)
        if masked == name or not name.replace("_", "").isalpha() or not name.islower():
            return masked
        return masked if any(len(value) >= _LEAST_OF_A_NAME and value in name for value in self._counts) else name


def _values(secrets: Iterable[Secret]) -> list[str]:
    """Return the strings to search for; for a complete header value, also its token."""
    values: list[str] = []
    for secret in secrets:
        value = secret.reveal()
        header = _SCHEME.fullmatch(value)
        values += [value] if header is None else [value, header[1]]
    return [value for value in values if len(value) >= SHORTEST]


def _beginning(text: str, forms_: Iterable[str], *, least: int = SHORTEST) -> int:
    """Return the length of the longest suffix of ``text`` that is a prefix of one of ``forms_``, or 0."""
    for form in forms_:
        for length in range(min(len(form) - 1, len(text)), least - 1, -1):
            if text.endswith(form[:length]):
                return length
    return 0


def _cut_out(text: str, spans: Iterator[tuple[int, int]]) -> str:
    parts, end = [], 0
    for start, stop in spans:
        parts += [text[end:start], MASK]
        end = stop
    return "".join([*parts, text[end:]])

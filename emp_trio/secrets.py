"""Secrets are a type: a value that can be used but not shown, and the means to take known secrets out of text.

What this process holds is known in one place: whoever opens something with secrets says :func:`held` for as long as it
is open (connectors, storage, the connection to Redis, a job with credentials of its own). Every :class:`Redactor` and
:func:`excerpt` masks all of it.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

from emp_trio.secret_escapes import WIDEST, Span, escapes_for, in_original, merged, readings, without_cut_escape
from emp_trio.secret_forms import LONGEST, SHORTEST, forms, parts_of
from emp_trio.secret_names import is_harmless_header, is_headers_name, is_secret_name, named_secret
from emp_trio.secret_shapes import MASK, without_shapes
from emp_trio.sizes import LARGE

__all__ = [
    "MASK",
    "Redactor",
    "Secret",
    "distinct",
    "excerpt",
    "excerpt_around",
    "harmless",
    "held",
    "hides",
    "hold",
    "one_line",
]

_LEAST_OF_A_NAME: Final = 8  # characters of a secret that is looked for in names that are plain words
_SCHEME: Final = re.compile(r"(?i:bearer|basic|token|apikey|api-key|key|jwt) +(\S{6,})")
_MARGIN: Final = 1024  # characters behind a cut that are looked at, or more where a secret is longer


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


class _Known:
    """Secrets by how often they were added, and what to look for because of them."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._plain: tuple[str, ...] = ()
        self._marked: dict[str, tuple[str, ...]] = {}
        self._probes: tuple[tuple[str, str, int], ...] = ()
        self._least = sys.maxsize  # characters of a text in which any of it can be
        self._unescaped: tuple[str, ...] = ()  # to be looked for where escapes have been read
        self._escapes: tuple[str, ...] = ()  # without one of them no part of a secret is escaped
        self.longest = 0

    def add(self, secrets: Iterable[Secret]) -> None:
        values = _values(secrets)
        new = any(value not in self._counts for value in values)
        self._counts.update(values)
        if new:
            self._learn()

    def forget(self, secrets: Iterable[Secret]) -> None:
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
        # Replaced as a whole: other threads may be looking meanwhile.
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
        if len(text) < self._least:  # always so where nothing is known
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
        """``text`` without what is a secret only once escapes are read."""
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
        """``text``, which was cut, without the first part of a secret at its end."""
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
        """A member's name without secrets. Names of our own are words, which a short password may be as well."""
        masked = self.without(name)
        if masked == name or not name.replace("_", "").isalpha() or not name.islower():
            return masked
        return masked if any(len(value) >= _LEAST_OF_A_NAME and value in name for value in self._counts) else name


def _values(secrets: Iterable[Secret]) -> list[str]:
    """The texts that are to be looked for; of what is a whole header, its token as well."""
    values: list[str] = []
    for secret in secrets:
        value = secret.reveal()
        header = _SCHEME.fullmatch(value)
        values += [value] if header is None else [value, header[1]]
    return [value for value in values if len(value) >= SHORTEST]


_HELD: Final = _Known()


def held(*secrets: Secret) -> AbstractContextManager[None]:
    """Mask ``secrets`` wherever this process writes something, for as long as the block lasts."""
    return _holding(secrets) if secrets else _NOTHING


@contextmanager
def _holding(secrets: tuple[Secret, ...]) -> Iterator[None]:
    _HELD.add(secrets)
    try:
        yield
    finally:
        _HELD.forget(secrets)


_NOTHING: Final = nullcontext()


def hold(*secrets: Secret) -> None:
    """Mask ``secrets`` wherever this process writes something, until it ends."""
    _HELD.add(secrets)


def excerpt(text: str, limit: int) -> str:
    """The beginning of a text of somebody else's, fit to be shown: masked first, and cut then.

    Every text of a service that is shortened goes through here, so that no part of a secret is left before the cut
    where the whole of it would have been known.

    Args:
        text: of any length; no more than a little beyond ``limit`` is looked at.
        limit: characters that are kept.
    """
    head = text if len(text) <= limit else text[: limit + max(_MARGIN, 2 * _HELD.longest)]
    shown = without_shapes(_HELD.without(head))
    if len(head) < len(text):
        shown = _HELD.without_beginning(shown)
    return shown if len(shown) <= limit else shown[:limit]


def one_line(text: str, limit: int) -> str:
    """As :func:`excerpt`, on one line: a blank in place of each run of them and of line breaks."""
    return excerpt(" ".join(excerpt(text, 4 * limit).split()), limit)


def excerpt_around(text: str, place: int, *, before: int, after: int) -> str:
    """So many characters before and after ``place`` of a text of somebody else's: masked first, and cut then."""
    margin = max(_MARGIN, 2 * _HELD.longest)
    start, stop = max(0, place - before - margin), min(len(text), place + after + margin)
    shown = without_shapes(_HELD.without(text[start:stop]))
    if stop < len(text):
        shown = _HELD.without_beginning(shown)
    middle = len(without_shapes(_HELD.without(text[start:place])))
    return shown[max(0, middle - before) : middle + after]


class Redactor:
    """Takes secrets out of text: the ones it was told of, those that the process holds, and every shape known to be
    secret.

    Args:
        known: secrets whose very text, or one of its encodings, must not appear; those under four characters are left
            out.
    """

    def __init__(self, known: Iterable[Secret] = ()) -> None:
        self._own = _Known()
        self._own.add(known)

    def add(self, *secrets: Secret) -> None:
        """Learn more secrets, for example the credentials of one job's ``ctx``."""
        self._own.add(secrets)

    def forget(self, *secrets: Secret) -> None:
        """Take back one :meth:`add` of each."""
        self._own.forget(secrets)

    def text(self, text: str) -> str:
        """``text`` with every secret replaced by ``***``."""
        if len(text) <= LARGE:
            return without_shapes(_HELD.without(self._own.without(text)))
        return _in_slices(text, lambda part: without_shapes(_HELD.without(self._own.without(part))), self._longest)

    def known(self, text: str) -> str:
        """``text`` without known secrets and their encodings; shapes that look secret stay (signed URLs)."""
        if len(text) <= LARGE:
            return _HELD.without(self._own.without(text))
        return _in_slices(text, lambda part: _HELD.without(self._own.without(part)), self._longest)

    def excerpt(self, text: str, limit: int) -> str:
        """As :func:`excerpt`, with this redactor's own secrets masked as well."""
        head = text if len(text) <= limit else text[: limit + max(_MARGIN, 2 * self._own.longest, 2 * _HELD.longest)]
        shown = self._own.without(head)
        if len(head) < len(text):
            shown = _HELD.without_beginning(self._own.without_beginning(_HELD.without(shown)))
        return excerpt(shown, limit)

    def known_in(self, value: Any) -> Any:
        """A copy of JSON-like ``value`` in which every text, names of members too, has gone through :meth:`known`."""
        match value:
            case str():
                return self.known(value)
            case dict():
                return distinct((self._name(k), self.known_in(v)) for k, v in value.items())
            case list() | tuple():
                return [self.known_in(v) for v in value]
            case _:
                return value

    def data(self, value: Any) -> Any:
        """A copy of JSON-like ``value`` in which every string has gone through :meth:`text`; Secrets, what stands
        under or beside a name such as ``api_key``, and headers that are not known to be harmless, become ``***``."""
        return self._data(value, headers=False)

    def _data(self, value: Any, *, headers: bool) -> Any:
        match value:
            case str():
                return self.text(value)
            case Secret():
                return MASK
            case dict():
                beside = named_secret(value)
                return distinct(
                    (
                        self.text(k) if isinstance(k, str) else k,
                        MASK
                        if hides(k, v) or (beside and k == "value") or (headers and not harmless(k, v))
                        else self._data(v, headers=isinstance(k, str) and is_headers_name(k)),
                    )
                    for k, v in value.items()
                )
            case list() | tuple():
                return [value[0], MASK] if named_secret(value) else [self.data(v) for v in value]
            case _:
                return value

    @property
    def _longest(self) -> int:
        return max(self._own.longest, _HELD.longest)

    def _name(self, name: Any) -> Any:
        return _HELD.in_name(self._own.in_name(name)) if isinstance(name, str) else name


def hides(name: Any, value: Any) -> bool:
    """Whether a member's name says that its value is a secret, and there is a value to be hidden."""
    return isinstance(name, str) and bool(value) and value is not True and is_secret_name(name)


def harmless(name: Any, value: Any) -> bool:
    """Whether a member of a table of headers may be shown."""
    return not isinstance(value, str) or (isinstance(name, str) and is_harmless_header(name))


def distinct(members: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """An object of members of which masking may have made some alike: none is lost."""
    made: dict[Any, Any] = {}
    alike: Counter[Any] = Counter()
    for name, value in members:
        free = name
        while free in made:
            alike[name] += 1
            free = f"{name} ({alike[name] + 1})"
        made[free] = value
    return made


def _in_slices(text: str, mask: Callable[[str], str], longest: int) -> str:
    """``mask(text)`` of a long text in pieces, so that a thread that does it lets others run in between."""
    parts, start, reach = [], 0, max(_MARGIN, 2 * longest)
    while start < len(text):
        stop = _seam(text, min(start + LARGE, len(text)), mask, reach)
        parts.append(mask(text[start:stop]))
        start = stop
    return "".join(parts)


def _seam(text: str, place: int, mask: Callable[[str], str], reach: int) -> int:
    """A place near to ``place`` at which a cut goes through nothing that is to be masked."""
    for stop in range(place, min(place + 32 * reach, len(text)), reach // 8 + 1):
        before, after = text[stop - reach : stop], text[stop : stop + reach]
        if mask(before) + mask(after) == mask(before + after):
            return stop
    return min(place + 32 * reach, len(text))


def _beginning(text: str, forms_: Iterable[str], *, least: int = SHORTEST) -> int:
    """How many characters at the end of ``text`` are the beginning of one of ``forms_``; 0 where none are."""
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
